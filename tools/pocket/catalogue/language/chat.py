"""Language of the catalogue world for the pocket chat model and the program: prompts in, prompts out.

A prompt comes back in the first of the wordings that the generator was trained on. Not covered: going back to
an earlier image, which a chat has a command for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from pleinair.tools.pocket.catalogue.language import questions
from pleinair.tools.pocket.catalogue.language.changes.change import change
from pleinair.tools.pocket.catalogue.language.prompts import Mention, Request, write_prompt
from pleinair.tools.pocket.catalogue.language.reading import concepts, read, write
from pleinair.tools.pocket.catalogue.language.refusals import with_article
from pleinair.tools.pocket.catalogue.species import KINDS, SPECIES
from pleinair.tools.pocket.language import Change, OutsideWorld, Wording
from pleinair.tools.types import Concept

_OPENINGS = ("a photo of", "a picture of", "an image of")


class CatalogueLanguage:
    """The world's implementation of `Language`; its refusals are `NotUnderstood`."""

    abilities = (
        f"I read prompts by rules, such as 'two puffins on a beach at sunset': {', '.join(KINDS)}, by name "
        "or in a colour, up to three in an image, with a place, a light and a weather"
    )
    names: Sequence[str] = tuple(species.name for species in SPECIES)

    def wording(self, prompt: str) -> Wording:
        """Return the prompt in the generator's words; notable if they are not the same but for capitals."""
        reading = read(prompt)
        written = write(reading.request)
        is_other = written != " ".join(prompt.lower().rstrip(" .!?").split())
        return Wording(written, reading.omitted, reading.corrected, is_other)

    def concepts(self, prompt: str) -> list[Concept]:
        """Return what must be visible, each once: "hoopoe", "red car"."""
        return list(concepts(read(prompt).request))

    def answer(self, line: str) -> str:
        """Return the answer to a question such as "which birds do you know?", "" for any other line."""
        return questions.answer(line) or ""

    def captions(self, concept: str, count: int) -> list[str]:
        """Return a caption with each opening, up to `count`."""
        return [f"{opening} {with_article(concept)}" for opening in _OPENINGS[:count]]

    def caption(self, names: Sequence[str]) -> str:
        """Return a caption of subjects beside each other."""
        return write(Request(tuple(map(Mention, names))))

    def rephrase(self, prompt: str) -> str:
        """Return one of the wordings that the generator was trained on."""
        return write_prompt(random.Random(prompt), read(prompt).request)

    def change(self, line: str, before: str) -> Change:
        """Return the complete prompt that a line means; raise `OutsideWorld` for one that goes back.

        A prompt before it that is of another world counts as none.
        """
        last = _request(before)
        if last is None:
            return Change(self.wording(line).prompt)
        changed = change(line, last)
        if changed.earlier:
            raise OutsideWorld("I cannot go back to an earlier image in words; undo does")
        vetoed = changed.other_reference_of
        return Change(write(changed.request), ", ".join(vetoed), vetoed)


def _request(prompt: str) -> Request | None:
    """Return what a prompt asks for, None for one that the world cannot draw."""
    try:
        return read(prompt).request
    except OutsideWorld:
        return None
