"""What words of a change refer to: subjects of the request before, by name, colour, size and place.

A kind's name means a species of it too, and part of a name the whole: "the bird", "the tang". Where two
subjects may be meant, the user is asked which.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pleinair.tools.pocket.catalogue.language.arrangement import find, kind_of
from pleinair.tools.pocket.catalogue.language.lexicon import Item, scan
from pleinair.tools.pocket.catalogue.language.phrases import Phrase
from pleinair.tools.pocket.catalogue.language.prompts import Mention, Request
from pleinair.tools.pocket.catalogue.language.refusals import NotUnderstood
from pleinair.tools.pocket.catalogue.species import BY_NAME

NOUNS = ("name", "kind")
INDEFINITE = ("a", "an", "another", "any")
_ORDERS: Mapping[str, Mapping[str, tuple[int, ...]]] = {  # of the subjects in each relation
    "left to right": {"beside": (0, 1, 2), "left of": (0, 1, 2), "right of": (1, 0, 2)},
    "top to bottom": {"above": (0, 1), "on": (0, 1), "under": (1, 0)},
    "front to back": {"in front of": (0, 1), "behind": (1, 0)},
}
_PLACES = {
    "left": ("left to right", 0),
    "right": ("left to right", -1),
    "first": ("left to right", 0),
    "second": ("left to right", 1),
    "third": ("left to right", 2),
    "last": ("left to right", -1),
    "top": ("top to bottom", 0),
    "upper": ("top to bottom", 0),
    "bottom": ("top to bottom", -1),
    "lower": ("top to bottom", -1),
    "front": ("front to back", 0),
    "back": ("front to back", -1),
}
_COPIES = ("one", "ones")


def names_of(request: Request) -> tuple[str, ...]:
    """Return the names of a request's subjects, described where two have the same name."""
    names = tuple(mention.name for mention in request.mentions)
    return names if len({*names}) == len(names) else described(request)


def described(request: Request) -> tuple[str, ...]:
    """Return sizes, colours and names of a request's subjects: "small red car"."""
    return tuple(_description(mention) for mention in request.mentions)


def _description(mention: Mention) -> str:
    return " ".join(filter(None, (mention.size, mention.colour, mention.name)))


def with_names(words: Sequence[str], request: Request) -> list[str]:
    """Return words with the names of what they refer to: "the red one", "the left one", "the tang"."""
    named = list(words)
    for at in reversed(range(len(words))):
        if words[at] in _COPIES:
            number = _copied(words[:at], request)
            begin = at - 1 if words[at - 1 : at] and words[at - 1] in (*_PLACES, "other") else at
        else:
            number, begin = _in_part(words, at, request), at
        if number is not None:
            mention = request.mentions[number]
            named[begin : at + 1] = (_description(mention) if begin < at else mention.name).split()
    return named


def _copied(before: Sequence[str], request: Request) -> int | None:
    """Return the subject that "the red one" or "the left one" means, by the words before "one"."""
    _, article, said = f" {' '.join(before)}".rpartition(" the ")
    if not article or not said:
        return None
    if said in _PLACES:
        return _at_place(said, request)
    if said == "other":
        return _not_named(before, request)
    in_name = [number for number, mention in enumerate(request.mentions) if said in mention.name.split()]
    fits = fitting(scan(said)[0], request) or in_name
    return fits[0] if len(fits) == 1 else None


def _not_named(words: Sequence[str], request: Request) -> int | None:
    """Return the one of two subjects that words do not name."""
    named = {item.word.value for item in scan(" ".join(words))[0] if item.role in NOUNS}
    left = [n for n, mention in enumerate(request.mentions) if not named & {mention.name, kind_of(mention)}]
    return left[0] if len(request.mentions) == 2 and len(left) == 1 else None


def _at_place(place: str, request: Request) -> int | None:
    """Return the subject at a place in the row, None if they stand in none or it cannot be told apart."""
    order, number = _PLACES[place]
    row = _ORDERS[order].get(next(iter(request.relations), "beside"), ())[: len(request.mentions)]
    if not row or number >= len(row):
        return None
    names = described(request)
    return row[number] if names.count(names[row[number]]) == 1 else None


def _in_part(words: Sequence[str], at: int, request: Request) -> int | None:
    """Return the subject of which a word is a part of the name: "bigger peacock" of a peacock butterfly."""
    if (at and words[at - 1] in INDEFINITE) or not _is_alone(words, at):
        return None
    alone = scan(words[at])[0]
    if any(item.role in ("setting", "colour") for item in alone):  # "in the city" is no city bus
        return None
    meant = {item.word.value for item in alone if item.role in NOUNS}
    if any(find(Mention(name), request.mentions) is not None for name in meant):
        return None
    forms = {words[at], words[at].removesuffix("s")}
    fits = [
        number
        for number, name in enumerate(mention.name for mention in request.mentions)
        if name in BY_NAME and forms & {*re.findall(r"\w+", name)} and name not in " ".join(words)
    ]
    return fits[0] if len(fits) == 1 else None


def _is_alone(words: Sequence[str], at: int) -> bool:
    """Return whether a word is read for itself, not in a phrase such as "fire truck"."""
    lengths = [len(item.text.split()) for item in scan(" ".join(words))[0]]
    return any(length == 1 and sum(lengths[:number]) == at for number, length in enumerate(lengths))


def fitting(said: Sequence[Item], request: Request) -> list[int]:
    """Return the subjects that have the colours and sizes, or the name, that items state; [] for others."""
    if not said or any(item.role not in ("colour", "size", *NOUNS) for item in said):
        return []
    return [
        number
        for number, mention in enumerate(request.mentions)
        if all(
            item.word.value in (mention.colour, mention.size, mention.name, kind_of(mention)) for item in said
        )
    ]


def found(part: Phrase, request: Request) -> int | None:
    """Return the subject that a phrase means, None if there is none.

    Raises:
        NotUnderstood: "the bird" may be either of two birds that differ.
    """
    mention = part.mention
    number = find(mention, request.mentions) if mention else None
    if mention is None or number is None or part.article in INDEFINITE:
        return number
    meant = request.mentions[number]
    others = [m for m in request.mentions if m != meant and find(mention, [m]) is not None]
    if meant.name == mention.name:
        others = [other for other in others if other.name == mention.name]
    if any(m.size == meant.size or mention.size != meant.size for m in others):
        raise NotUnderstood("change", f"the {mention.name}", described(request))
    return number


def target(subjects: Sequence[Phrase], new: Mention | None, request: Request, text: str) -> int:
    """Return the subject of the first phrase; without one, that of a new one's kind, or the only one."""
    if subjects:
        number = found(subjects[0], request)
    elif len(request.mentions) == 1:
        number = 0
    else:
        kinds = [kind_of(subject) for subject in request.mentions]
        kind = kind_of(new) if new else ""
        number = kinds.index(kind) if kinds.count(kind) == 1 else None
    if number is None:
        raise NotUnderstood("change", text, names_of(request))
    return number


def several(named: Sequence[Item], request: Request, count: int) -> int | None:
    """Return the subject, of which there are more than `count`, that items name, or the only one."""
    names = [Mention(item.word.value) for item in named if item.role in NOUNS]
    fits = [
        number
        for number, mention in enumerate(request.mentions)
        if mention.count > count and all(find(name, [mention]) is not None for name in names)
    ]
    return fits[0] if len(fits) == 1 else None
