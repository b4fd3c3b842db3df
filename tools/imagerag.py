"""The questions of ImageRAG (Shalev-Arkushin et al., ICLR 2026, section 3): match, missing, captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pleinair.tools.answers import Captions, Decision, MissingConcepts
from pleinair.tools.ask import ask
from pleinair.tools.types import Concept, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

DECIDE = "Does the picture match the prompt, in content and in style? Say so, and why."
MISSING = (
    "The picture was drawn for the prompt and does not match it. List what the prompt asks for and the "
    "picture lacks: objects, attributes and styles, one short name each."
)
CAPTION = (
    "For each concept write one caption of a picture that would show it. The caption must stand alone, "
    "because it is used to look the picture up."
)


def decide(png: bytes, prompt: str, *, model: BaseChatModel) -> tuple[Decision, Usage]:
    """Ask whether the picture matches the prompt (the paper's first call)."""
    return ask(model, Decision, DECIDE, {"prompt": prompt}, [png])


def list_missing(png: bytes, prompt: str, *, model: BaseChatModel) -> tuple[list[str], Usage]:
    """Ask what is missing (the paper's second call); the list may be empty."""
    answer, usage = ask(model, MissingConcepts, MISSING, {"prompt": prompt}, [png])
    return list(dict.fromkeys(answer.concepts)), usage


def write_captions(concepts: Sequence[str], *, model: BaseChatModel) -> tuple[list[Concept], Usage]:
    """Ask for one caption a concept (the paper's third call), paired by name and not by line.

    A concept without a caption is looked up by its own name.
    """
    answer, usage = ask(model, Captions, CAPTION, {"concepts": list(concepts)})
    written = {one.name: one.caption for one in answer.captions}
    return [Concept(name=name, caption=written.get(name, name)) for name in concepts], usage
