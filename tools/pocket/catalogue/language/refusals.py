"""Refusals of the catalogue world's language: what was not understood, in fields and in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

from pleinair.tools.pocket.catalogue.drawings.palette import NAMED
from pleinair.tools.pocket.catalogue.species import BY_NAME, KINDS
from pleinair.tools.pocket.language import OutsideWorld

Kind = Literal[
    "unknown name", "too many subjects", "too many of one", "colour", "not shown", "negation", "no subject",
    "language", "settings", "relations", "change", "question",
]  # fmt: skip
_KINDS = ", ".join(kind.plural for kind in KINDS.values())


class NotUnderstood(OutsideWorld):
    """Request that the world cannot draw; the message is one line that says why.

    `phrase` has the user's words, `nearest` up to three names of the world, best first. `reason` is a
    sentence instead of the kind's own one.
    """

    def __init__(self, kind: Kind, phrase: str, nearest: tuple[str, ...] = (), reason: str = "") -> None:
        phrase = re.sub(r"\s+(?=[,.;:!?])", "", phrase)
        super().__init__(reason or _MESSAGES[kind](phrase, nearest))
        self.kind: Kind = kind
        self.phrase = phrase
        self.nearest = nearest


def with_article(phrase: str) -> str:
    """Return a phrase with "a" or "an", a plural without."""
    if phrase.endswith("s") and not phrase.endswith(("ss", "us", "is")):
        return phrase
    return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"


def _unknown(phrase: str, nearest: tuple[str, ...]) -> str:
    known = [name for name in nearest if name in BY_NAME or name in KINDS]
    if known:
        kind = BY_NAME[known[0]].kind if known[0] in BY_NAME else ""
        of_kind = f"of {KINDS[kind].plural} I know, for example," if kind else "what comes nearest is"
        return f"I cannot draw {with_article(phrase)}; {of_kind} {', '.join(known)}"
    if nearest:
        return f'I cannot draw "{phrase}"; the nearest that I know is {", ".join(nearest)}'
    return f'I cannot draw "{phrase}"; I draw {_KINDS}'


def _too_many_of_one(phrase: str, nearest: tuple[str, ...]) -> str:
    return f'"{phrase}" is too many; of one thing I draw one, two or three'


def _colour(phrase: str, nearest: tuple[str, ...]) -> str:
    if nearest and nearest[0] in BY_NAME:
        kind = BY_NAME[nearest[0]].kind
        return f"{with_article(nearest[0])} has its own colours, not {phrase}; a {kind} can have any"
    return f"I draw a thing in one colour, not in {phrase}; the colours are {', '.join(NAMED)}"


def _change(phrase: str, nearest: tuple[str, ...]) -> str:
    if not phrase:
        return f"Please say which should change: {', '.join(nearest)}"
    return f'I cannot tell what "{phrase}" should change; in the image: {", ".join(nearest)}'


_MESSAGES: Mapping[Kind, Callable[[str, tuple[str, ...]], str]] = {
    "unknown name": _unknown,
    "too many subjects": lambda phrase, nearest: (
        f"{phrase} are too many; I draw up to three different things, and of three different ones one each"
    ),
    "too many of one": _too_many_of_one,
    "colour": _colour,
    "not shown": lambda phrase, nearest: (
        f'I cannot show "{phrase}"; I draw {_KINDS} with a place, a light and a weather, in one style'
    ),
    "negation": lambda phrase, nearest: f'I cannot leave out "{phrase}"; write only what is to be seen',
    "no subject": lambda phrase, nearest: (
        f'"{phrase}" names nothing that I can draw; I draw {_KINDS}, for example "a puffin on a beach"'
    ),
    "language": lambda phrase, nearest: 'I read English only, for example "a puffin on a beach"',
    "settings": lambda phrase, nearest: f"{phrase} do not go together; choose a place, a light, a weather",
    "relations": lambda phrase, nearest: (
        f'I cannot place "{phrase}"; two things can stand in a relation, a third one stands beside them'
    ),
    "change": _change,
    "question": lambda phrase, nearest: (
        f'I cannot answer "{phrase}"; I answer "what can you draw?" and draw what you name: "a puffin"'
    ),
}
