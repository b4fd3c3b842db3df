"""What is worth telling about a request before it is drawn; notes never stop it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from pleinair.app.libraries import index_folder
from pleinair.app.parts import PROGRAM, has_own_retriever
from pleinair.app.pocket import is_pocket
from pleinair.app.settings import Settings, home_of
from pleinair.tools import registry
from pleinair.tools.arguments import validated
from pleinair.tools.diffusion.prompt_length import SAFE, cut_prompt
from pleinair.tools.pocket.language import Wording
from pleinair.tools.prompt_options import PromptOption
from pleinair.tools.retrieval.spelling import load_vocabulary, suggestions
from pleinair.tools.types import Value

LIBRARY = (
    "The pocket models know their miniature world only, so they cannot draw what is in {folder!r}. "
    "For your own images use a real generator: `--profile NAME`, of those in docs/generators.md."
)
SPELLING = "“{word}” is in no caption of the library; did you mean “{meant}”?"
CUT = "The generator reads the first {tokens} tokens of the prompt; it is not told: “{text}”"


class Note(Value):
    """One note, by its kind, with the sentence for people."""

    kind: Literal["library", "spelling", "prompt_cut", "wording"]
    text: str
    about: str = ""  # the part of a prompt that is cut, the word that may be meant, the prompt as it was read


def notes_on(prompt: str, settings: Settings) -> Iterator[Note]:
    """Yield the notes on the prompt and settings of a valid request."""
    if is_pocket(settings) and settings.library.folders:
        yield Note(kind="library", text=LIBRARY.format(folder=" and ".join(settings.library.folders)))
    yield from _spelling(prompt, settings)
    if not is_pocket(settings) and len(prompt.encode()) > SAFE:
        yield from _cut(prompt, settings)


def note_on(wording: Wording) -> Iterator[Note]:
    """Yield a note on a prompt that was read in other words than a person's."""
    if wording.is_notable:
        parts = [f"Read as “{wording.prompt}”"]
        parts += [f"“{word}” as “{meant}”" for word, meant in wording.corrected.items()]
        parts += [f"left out: {', '.join(wording.omitted)}"] if wording.omitted else []
        yield Note(kind="wording", text="; ".join(parts), about=wording.prompt)


def _spelling(prompt: str, settings: Settings) -> Iterator[Note]:
    """Yield the words that look like one of the captions of an indexed library."""
    if has_own_retriever(settings):
        return
    vocabulary = load_vocabulary(index_folder(settings, home_of(settings)))
    for word, meant in suggestions(prompt, vocabulary) if vocabulary else ():
        yield Note(kind="spelling", text=SPELLING.format(word=word, meant=meant), about=meant)


def _cut(prompt: str, settings: Settings) -> Iterator[Note]:
    """Yield what the generator's text encoder cuts off the prompt, if its tokenizer is on this machine."""
    from pleinair.tools.diffusion.settings import DiffusersSettings

    choice = settings.generator
    if choice.backend == PROGRAM:
        return
    model = getattr(registry.resolve("generator", choice.backend), "settings_model", None)
    if not (isinstance(model, type) and issubclass(model, DiffusersSettings)):
        return
    arguments = validated(model, choice.arguments, "generator", f"generator {choice.backend!r}")
    if cut := cut_prompt(prompt, arguments):
        yield Note(kind="prompt_cut", text=CUT.format(tokens=cut.tokens, text=cut.text), about=cut.text)


def option_lines(options: Iterable[PromptOption], notes: Iterable[Note]) -> Iterator[str]:
    """Yield what was read from the prompt, and the notes, a line each."""
    yield from (f"from the prompt: {option.sentence}" for option in options)
    yield from (note.text for note in notes)
