"""What a multimodal language model is asked to fill in: one schema a question."""

from __future__ import annotations

from pydantic import Field

from pleinair.tools.types import Concept, Ledger, Value


class Decomposition(Value):
    """List everything that must be visible in the picture, each with a caption for look-up."""

    concepts: tuple[Concept, ...] = Field(min_length=1, max_length=16)


class Critique(Ledger):
    """State for every concept, in the order given, whether the picture shows it."""


class Decision(Value):
    """Say whether the picture matches the prompt in content and style."""

    match: bool
    why: str = ""


class MissingConcepts(Value):
    """List what the prompt asks for and the picture lacks."""

    concepts: tuple[str, ...]


class Captions(Value):
    """Give each concept one stand-alone caption of a picture that would show it."""

    captions: tuple[Concept, ...]
