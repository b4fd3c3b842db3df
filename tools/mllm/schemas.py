"""Schemas of the answers of a multimodal language model; their docstrings are sent to it."""

from __future__ import annotations

from pydantic import Field

from pleinair.tools.types import Concept, Ledger, Value


class Decomposition(Value):
    """List everything that must be visible in the picture, each with a caption for look-up."""

    concepts: tuple[Concept, ...] = Field(min_length=1, max_length=16)


class Critique(Ledger):
    """State for every concept, in the order given, whether the picture shows it."""


class Decision(Value):
    """Decide whether the picture matches the prompt in content and style."""

    match: bool
    why: str = ""


class MissingConcepts(Value):
    """List what the prompt asks for and the picture lacks; without a picture, all that the prompt needs."""

    concepts: tuple[str, ...]


class Captions(Value):
    """Write for each concept stand-alone captions of pictures that would show it, each with its concept."""

    captions: tuple[Concept, ...]


class Rephrasing(Value):
    """Write the prompt in other words that a picture generator will follow better."""

    prompt: str = Field(min_length=1)


class Ranking(Value):
    """List the numbers of the pictures that show the text, the best first."""

    order: tuple[int, ...]


class SubQueries(Value):
    """List the visible things that the prompt names, each as a short noun phrase with its own modifiers."""

    subqueries: tuple[str, ...] = Field(min_length=1, max_length=16)


class PictureCaption(Value):
    """Describe in one sentence what the picture shows, by the names of what is in it."""

    caption: str = Field(min_length=1)
