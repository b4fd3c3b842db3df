"""Tokens of an MLLM call before the first run, from what its client would send.

Texts are counted by their characters, images by OpenAI's published rules, answers up to their cap. Not
covered: graphs in which the model's own calls decide what is sent next, a tokenizer's true count, and a
second look at more than four concepts at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import ClassVar

from pleinair.app.settings import BackendChoice
from pleinair.tools.types import Value

MOST_PER_TOKEN, LEAST_PER_TOKEN = 6, 2  # characters: of plain words; of JSON, names and other languages
REPAIR = 3000  # characters of names, an earlier answer and its fault, at most
LOW_DETAIL = 70  # tokens of an image at low detail, for models that count it as a whole
PATCH, PATCH_TOKENS = 32, 2.46  # pixels a side of the patches that others count, and the most tokens of one
SHORTEST = 10  # tokens of an answer
CUT_OUTS = 4  # images of a critique's second call, one for each concept that it was unsure of


class CallTokens(Value):
    """Least and most that a call reads, and that its answer writes; None is unknown."""

    read: tuple[float, float]
    written: tuple[float, float | None]
    note: ClassVar[str] = "an estimate from the length of what is sent, with answers up to mllm.max_tokens"


def tokens_of_call(
    graph: str, prompt: str, choice: BackendChoice, *, reranks: bool = False
) -> CallTokens | None:
    """Estimate one call of a graph; None for a backend or a graph that this does not cover.

    With `reranks` the model also orders the images that ImageRAG retrieves.
    """
    calls = [(text + prompt, images) for text, images in _calls(graph, reranks)]
    return _tokens_of(calls, choice) if calls else None


def tokens_of_caption(choice: BackendChoice) -> CallTokens | None:
    """Estimate a call that captions an image; None for a backend that this does not cover."""
    from pleinair.agent.mllm.request import described
    from pleinair.tools.crossmodal import CAPTION
    from pleinair.tools.mllm.schemas import PictureCaption

    return _tokens_of([(CAPTION + json.dumps(described(PictureCaption)), 1)], choice)


def tokens_of_subqueries(caption: str, choice: BackendChoice) -> CallTokens | None:
    """Estimate a call that lists a caption's sub-queries; None for a backend that this does not cover."""
    from pleinair.agent.mllm.request import described
    from pleinair.tools.crossmodal import EXAMPLES, INSTRUCTION
    from pleinair.tools.mllm.schemas import SubQueries

    text = INSTRUCTION + str(EXAMPLES) + caption + json.dumps(described(SubQueries))
    return _tokens_of([(text, 0)], choice)


def _tokens_of(calls: Sequence[tuple[str, int]], choice: BackendChoice) -> CallTokens | None:
    if choice.backend != "openai":
        return None
    from pleinair.agent.mllm.openai import chat

    defaults = {name: parameter.default for name, parameter in signature(chat).parameters.items()}
    arguments = defaults | choice.arguments
    side, cap = int(arguments["side"]), int(arguments["max_tokens"])
    sizes = [(len(text), images) for text, images in calls]
    least = min(size / MOST_PER_TOKEN + images * LOW_DETAIL for size, images in sizes)
    text = (max(size for size, _ in sizes) + REPAIR) / LEAST_PER_TOKEN
    image = max(images for _, images in sizes) * math.ceil(side / PATCH) ** 2 * PATCH_TOKENS
    return CallTokens(read=(least, text + image), written=(SHORTEST, cap or None))


def _calls(graph: str, reranks: bool) -> Iterator[tuple[str, int]]:
    """Yield each kind of call: its text with the schema of its answer, and the number of its images."""
    from pleinair.agent.mllm.request import described
    from pleinair.tools import critique, crossmodal, decompose, imagerag
    from pleinair.tools.mllm import schemas as answers
    from pleinair.tools.retrieval import rerank

    conversation = (imagerag.DECIDE, imagerag.MISSING, imagerag.CAPTION)  # repeated in each call
    kinds: Mapping[str, tuple[tuple[str, type[Value], int], ...]] = {
        "pleinair": (
            (decompose.INSTRUCTION, answers.Decomposition, 0),
            (critique.INSTRUCTION, answers.Critique, 1),
            (critique.CLOSE_UP_INSTRUCTION, answers.Critique, CUT_OUTS),
        ),
        "imagerag": (
            (imagerag.INSTRUCTION + imagerag.DECIDE, answers.Decision, 1),
            (imagerag.INSTRUCTION + "".join(conversation), answers.Captions, 2),
        ),
        "crossmodal": (
            (crossmodal.INSTRUCTION + str(crossmodal.EXAMPLES), answers.SubQueries, 0),
            (crossmodal.CAPTION, answers.PictureCaption, 1),
        ),
    }
    ranking = ((rerank.INSTRUCTION, answers.Ranking, 2 * rerank.EACH),) if reranks else ()
    for text, schema, images in (*kinds.get(graph, ()), *ranking):
        yield text + json.dumps(described(schema)), images
