"""Interface of a world's language, by which the pocket chat model and the program read prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pleinair.tools.types import Concept


class OutsideWorld(ValueError):
    """Request that a language cannot read, or that its world cannot draw; the message is one sentence.

    `remedy` says what can be written instead, "" where the message does.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Wording:
    """Prompt in words that the generator was trained on, and what became of a person's words.

    `omitted` were left out, `corrected` were read as others. `is_notable` is whether a person should be shown
    how the prompt was read.
    """

    prompt: str
    omitted: tuple[str, ...] = ()
    corrected: Mapping[str, str] = field(default_factory=dict)
    is_notable: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """Complete prompt that a line of a chat asks for.

    `vetoed` has the line's words for a reference that shall be another ("bird"), "" for none, and
    `vetoed_concepts` the concepts of the prompt that they may mean.
    """

    prompt: str
    vetoed: str = ""
    vetoed_concepts: tuple[str, ...] = ()


class Language(Protocol):
    """Rules that read and write the prompts of one world; all methods raise `OutsideWorld`."""

    abilities: str  # what can be written, in a sentence for people
    names: Sequence[str]  # of all species

    def wording(self, prompt: str) -> Wording:
        """Return a prompt in words that the generator was trained on; its meaning stays the same."""
        ...

    def concepts(self, prompt: str) -> list[Concept]:
        """Return what must be visible, each once."""
        ...

    def change(self, line: str, before: str) -> Change:
        """Return what a line of a chat asks for after a prompt, "" at the beginning of a chat."""
        ...

    def answer(self, line: str) -> str:
        """Return the answer to a question about the world, "" for any other line."""
        ...

    def captions(self, concept: str, count: int) -> list[str]:
        """Return up to `count` captions of a concept, the same ones each time."""
        ...

    def caption(self, names: Sequence[str]) -> str:
        """Return a caption of an image that shows one or two species."""
        ...

    def rephrase(self, prompt: str) -> str:
        """Return another wording of a prompt, always the same one."""
        ...
