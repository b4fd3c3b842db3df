"""Language of the catalogue world: prompts are read into requests, and requests written as prompts.

It is rules and word lists, not a model. A text is read in three steps: `lexicon.scan` splits it into words
and phrases with their roles; `phrases.read_phrases` makes subjects of them and takes out the place, the light
and the weather; `arrangement.Arrangement` orders the subjects by the relations between them. What the world
cannot draw is refused by `NotUnderstood`. Not covered: other languages than English, several images.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pleinair.tools.pocket.catalogue.language.arrangement import Arrangement
from pleinair.tools.pocket.catalogue.language.lexicon import FOREIGN, VOCABULARY, Item, is_question, scan
from pleinair.tools.pocket.catalogue.language.phrases import read_phrases
from pleinair.tools.pocket.catalogue.language.prompts import Request, is_plural, write_prompt
from pleinair.tools.pocket.catalogue.language.refusals import NotUnderstood, with_article
from pleinair.tools.types import Concept

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text asks for; words that were left out, and words that were read as others."""

    request: Request
    omitted: tuple[str, ...] = ()
    corrected: Mapping[str, str] = field(default_factory=dict)


def read(text: str) -> Reading:
    """Return what a prompt asks the image to show.

    A plural without a number is two, "some" are three; a light or a weather that is not stated stays "".

    Raises:
        NotUnderstood: the text is a question, names what the world does not have or cannot show, or nothing.
    """
    check_question(text)
    items, corrections = scan(text)
    _check_language(text, items)
    phrases = read_phrases(items)
    subjects, relations, unplaced = Arrangement(phrases.parts).arrange(text)
    request = Request(subjects, relations, **phrases.fields)
    return Reading(request, (*phrases.omitted, *unplaced), corrections | phrases.narrowed)


def check_question(text: str) -> None:
    """Raise NotUnderstood for a text that asks something in place of asking for an image."""
    if is_question(text):
        raise NotUnderstood("question", " ".join(text.split()))


def _check_language(text: str, items: Sequence[Item]) -> None:
    """Raise NotUnderstood for a text in letters or with small words of another language."""
    words = [word.casefold() for item in items for word in item.text.split()]
    is_latin = all(letter < "\u0250" for letter in text if letter.isalpha())
    foreign = [word for word in words if word in FOREIGN and word not in VOCABULARY]
    unknown = sum(item.role == "unknown" for item in items)
    if not is_latin or len(foreign) > 1 or (foreign and unknown > len(foreign)):
        raise NotUnderstood("language", " ".join(text.split()))


class _First(random.Random):
    """Choose the first wording of each, a comma in a list of three, and the place at the end."""

    def choice(self, seq: Sequence[_T]) -> _T:  # type: ignore[override]
        return seq[0]

    def random(self) -> float:
        return 0.5


def complete(request: Request) -> Request:
    """Return a request with all its relations, and without a light and weather that prompts do not state."""
    missing = len(request.mentions) - 1 - len(request.relations)
    return replace(
        request,
        relations=(*request.relations, *["beside"] * missing),
        light="" if request.light == "day" else request.light,
        weather="" if request.weather == "clear" else request.weather,
    )


def write(request: Request) -> str:
    """Return the prompt of a request, in the first of the wordings that the generator was trained on.

    `read` of it gives the request again, as `complete` makes it: a day and clear weather have no words.
    """
    return write_prompt(_First(), request)


def concepts(request: Request) -> tuple[Concept, ...]:
    """Return what must be visible, each once: "hoopoe", "red car"; count and size do not belong to it."""
    phrases = dict.fromkeys(f"{mention.colour} {mention.name}".strip() for mention in request.mentions)
    return tuple(
        Concept(name=phrase, caption=phrase if is_plural(phrase) else with_article(phrase))
        for phrase in phrases
    )
