"""What a question to the language model may take in tokens, told from what its client would send.

Texts are counted by their characters, pictures by the rules that OpenAI has for its models, answers up to
their cap. Not covered: graphs in which the model's own calls decide what is sent next, and a tokenizer's true
count.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pleinair.app.settings import BackendChoice
from pleinair.tools.types import Value

FEW, MANY = 6, 2  # characters of a token: of plain words, and of JSON, names and other languages
CARD = 3000  # characters of names, an earlier answer and what was wrong with it, at most
LEAST = 70  # tokens of a picture at low detail, for models that count it whole
PATCH, DEAREST = 32, 2.46  # pixels a side of what others count, and the highest price of one in tokens
SHORT = 10  # tokens of the shortest answer


class Tokens(Value):
    """Hold the least and the most that a question reads, and that its answer writes; None is not known."""

    read: tuple[float, float]
    written: tuple[float, float | None]

    @property
    def note(self) -> str:
        """Say on what it rests."""
        return "an estimate from the length of what is sent, with answers up to mllm.max_tokens"


def estimated(graph: str, prompt: str, choice: BackendChoice) -> Tokens | None:
    """Estimate one question of a graph; None for an engine or a graph of which this cannot be told."""
    asked = list(_questions(graph))
    if choice.backend != "openai" or not asked:
        return None
    given = _defaults() | choice.arguments
    side, cap = int(given["side"]), int(given["max_tokens"])
    sizes = [len(text) + len(prompt) for text, _ in asked]
    sights = [count for _, count in asked]
    least = min(size / FEW + count * LEAST for size, count in zip(sizes, sights, strict=True))
    most = (max(sizes) + CARD) / MANY + max(sights) * math.ceil(side / PATCH) ** 2 * DEAREST
    return Tokens(read=(least, most), written=(SHORT, cap or None))


def _questions(graph: str) -> Iterator[tuple[str, int]]:
    """Give each sort of question of a graph: its text with the schema of its answer, and its pictures."""
    from pleinair.agent.mllm.request import described
    from pleinair.tools import critique, crossmodal, decompose, imagerag
    from pleinair.tools import critique as closer
    from pleinair.tools.mllm import schemas as answers

    own = (imagerag.DECIDE, imagerag.MISSING, imagerag.CAPTION)  # one conversation, which repeats them
    known: Mapping[str, tuple[tuple[str, type[Value], int], ...]] = {
        "pleinair": (
            (decompose.INSTRUCTION, answers.Decomposition, 0),
            (critique.INSTRUCTION, answers.Critique, 1),
            (closer.INSTRUCTION, answers.Critique, 1),
        ),
        "imagerag": (
            (imagerag.INSTRUCTION + imagerag.DECIDE, answers.Decision, 1),
            (imagerag.INSTRUCTION + "".join(own), answers.Captions, 2),
        ),
        "crossmodal": (
            (crossmodal.INSTRUCTION + str(crossmodal.EXAMPLES), answers.SubQueries, 0),
            (crossmodal.CAPTION, answers.PictureCaption, 1),
        ),
    }
    for text, schema, pictures in known.get(graph, ()):
        yield text + json.dumps(described(schema)), pictures


def _defaults() -> dict[str, Any]:
    """Give what the client takes where a profile says nothing."""
    from inspect import signature

    from pleinair.agent.mllm.openai import chat

    return {name: one.default for name, one in signature(chat).parameters.items()}
