"""What words say of a thing before or after its noun: how many there are, its size and its colour."""

from __future__ import annotations

from collections.abc import Sequence

from pleinair.tools.pocket.catalogue.language.lexicon import MANY, SOME, Item
from pleinair.tools.pocket.catalogue.language.prompts import Mention, is_plural
from pleinair.tools.pocket.catalogue.language.refusals import NotUnderstood
from pleinair.tools.pocket.catalogue.species import BY_NAME, MAIN_PARTS

_NEAR = {"white": "cream", "gold": "orange", "purple": "lilac"}  # words that a look's colour may be called
_SAME_COLOUR = {
    "ink": "black",
    "slate": "grey",
    "silver": "grey",
    "rust": "orange",
    "buff": "cream",
    "tan": "brown",
}


def described(name: str, count: int, words: Sequence[Item], base: Mention | None = None) -> Mention:
    """Return a mention with the sizes and colours of some words, or of a mention before.

    Raises:
        NotUnderstood: the words state several colours, or one that the species does not have.
    """
    base = base or Mention(name)
    size = next((part.word.value for part in words if part.role == "size"), base.size)
    colours = [part for part in words if part.role == "colour"]
    if len({part.word.value for part in colours}) > 1:
        text = " and ".join(part.text for part in colours)
        raise NotUnderstood("colour", text, (name,) if name in BY_NAME else ())
    if colours and name in BY_NAME and not has_colour(name, colours[0].word.value):
        raise NotUnderstood("colour", colours[0].text, (name, BY_NAME[name].kind))
    colour = colours[0].word.value if colours else base.colour
    return Mention(name, count, size, "" if name in BY_NAME else colour)


def superfluous(name: str, words: Sequence[Item]) -> list[str]:
    """Return the colours that words state of a species, which has them anyway."""
    return [part.text for part in words if part.role == "colour" and name in BY_NAME][:1]


def contradicts(words: Sequence[Item], mention: Mention) -> bool:
    """Return whether words state another size or colour than a mention has."""
    before = {"size": mention.size, "colour": mention.colour}
    return any(before.get(part.role, "") not in ("", part.word.value) for part in words)


def is_another(words: Sequence[Item]) -> bool:
    """Return whether words may name a thing like the one before: "a red one"; not "big one"."""
    is_indefinite = any(
        part.role == "article" and part.word.value in ("a", "an", "another") for part in words
    )
    return is_indefinite and has_copy(words)


def has_copy(words: Sequence[Item]) -> bool:
    """Return whether words name a thing by "one", which is no number then: "a red one", "big ones"."""
    return any(part.role == "copy" or (at and part.text.lower() == "one") for at, part in enumerate(words))


def is_unfinished(words: Sequence[Item]) -> bool:
    """Return whether words begin a new thing without naming it: "a red"; not "a pair of them"."""
    roles = {part.role for part in words}
    return words[0].word.value in ("a", "an", "another") and roles.isdisjoint({"number", "copy"})


def count_of(words: Sequence[Item], name: str, default: int) -> int:
    """Return the count that some words state, 1 to 3; "some" grapes are one bunch."""
    for part in words:
        if part.role == "number":
            if part.word.value == MANY:
                raise NotUnderstood("too many of one", part.text, (name,))
            return (1 if is_plural(name) else 3) if part.word.value == SOME else int(part.word.value)
    return default


def has_colour(name: str, colour: str) -> bool:
    """Return whether a species has a colour on one of its main parts."""
    species = BY_NAME[name]
    looks = {species.looks[part] for part in MAIN_PARTS[species.kind]}
    return colour in {_SAME_COLOUR.get(look, look) for look in looks} or _NEAR.get(colour) in looks
