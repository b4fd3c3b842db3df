"""What is worth telling about a request before it is drawn; notes never stop it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from pleinair.app.engines import is_pocket
from pleinair.app.settings import Settings
from pleinair.tools.prompt_options import PromptOption
from pleinair.tools.types import Value

LIBRARY = (
    "The pocket models know their invented miniature world only, so they cannot draw what is in {folder!r}. "
    "For your own images use a real generator: `--profile NAME`, of those in docs/generators.md."
)


class Note(Value):
    """One note, by its kind, with the sentence for people."""

    kind: Literal["library", "spelling", "prompt_cut"]
    text: str


def notes_on(prompt: str, settings: Settings) -> Iterator[Note]:
    """Yield the notes on the prompt and settings of a valid request."""
    if is_pocket(settings) and settings.library.folders:
        yield Note(kind="library", text=LIBRARY.format(folder=" and ".join(settings.library.folders)))


class HasNotes(Protocol):
    """A request, estimate or event with what was read from the prompt, and notes."""

    @property
    def prompt_options(self) -> tuple[PromptOption, ...]:
        """Return the options in the prompt."""
        ...

    @property
    def notes(self) -> tuple[Note, ...]:
        """Return the notes."""
        ...


def option_lines(value: HasNotes) -> Iterator[str]:
    """Yield what was read from the prompt, and the notes, a line each."""
    yield from (f"from the prompt: {option.sentence}" for option in value.prompt_options)
    yield from (note.text for note in value.notes)
