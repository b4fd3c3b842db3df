"""Words of the catalogue world's language: text is split into items, each with the role of its words.

The words are in `words.toml` and `neighbours.toml`; the names are those of the world. Spelling is corrected
by a letter or two, towards words of the world only, and never from another English word that is listed.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pleinair.tools.pocket.catalogue.drawings.palette import NAMED
from pleinair.tools.pocket.catalogue.language.prompts import (
    COUNTS,
    RELATION_WORDS,
    SIZE_WORDS,
    plural,
)
from pleinair.tools.pocket.catalogue.species import BY_NAME, KINDS

Role = Literal[
    "name", "kind", "number", "size", "colour", "relation", "side", "setting", "article", "joint",
    "companion", "inside", "pronoun", "copy", "group", "filler", "all", "harmless", "not shown", "negation",
    "neighbour", "unknown", "comma", "colon",
]  # fmt: skip
MARKS = (",", ".", ";", "!", "?", ":")  # between clauses
SOME = "some"  # value of a number that is left open
MANY = "4"  # value of a number that is too large


@dataclass(frozen=True, slots=True)
class Word:
    """Word or phrase of the lexicon; of a setting, `value` is the place, the light or the weather."""

    role: Role
    value: str = ""
    plural: bool = False
    wider: bool = False  # the name of a wider group, drawn as one species of it
    fields: tuple[tuple[str, str], ...] = ()  # of a setting: fields of the request
    nearest: tuple[str, ...] = ()  # of a neighbour: names of the world, best first
    colour: str = ""  # of a name that is also a colour


@dataclass(frozen=True, slots=True)
class Item:
    """Part of a text: a word or phrase of the lexicon, and how the text has it."""

    word: Word
    text: str

    @property
    def role(self) -> Role:
        """Return the role of the word."""
        return self.word.role


@dataclass(frozen=True, slots=True)
class _Token:
    key: str  # lower case, without accents and apostrophes
    text: str


_Key = tuple[str, ...]
_TOKEN = re.compile(r"\d+[.:]\d+|[^\W_]+(?:'[^\W_]+)*|[,;.!?():+&/\n]|(?<=\s)[-\u2013\u2014](?=\s)")
_MARKS: Mapping[str, Word] = (
    {
        ":": Word("colon"),
        "(": Word("colon"),
        "+": Word("joint"),
        "&": Word("joint"),
    }
    | dict.fromkeys(",;.!?)/\n", Word("comma"))
    | dict.fromkeys("-\u2013\u2014", Word("colon"))
)


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / name).read_text("utf-8"))


def _plain(text: str) -> str:
    """Return a text in lower case, without accents, with straight apostrophes."""
    decomposed = unicodedata.normalize("NFKD", text.replace("\u2019", "'").replace("\u2018", "'").casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def _key(phrase: str) -> _Key:
    return tuple(re.findall(r"\w+", _plain(phrase).replace("'", "")))


_WORDS, _NEIGHBOURS = _read("words.toml"), _read("neighbours.toml")
FOREIGN = frozenset(word for phrase in _WORDS["foreign"]["words"] for word in _key(phrase))
_REAL = frozenset(_WORDS["real_words"]["words"])
DETAILS: Mapping[str, list[str]] = _WORDS["place_details"]
QUESTIONS: Mapping[str, list[str]] = _WORDS["questions"]
CHANGES: Mapping[str, list[str]] = _WORDS["changes"]
PERSONS, TRANSITIVE = (frozenset(_WORDS["with_object"][table]) for table in ("persons", "poses"))
_FAMILIAR: Mapping[str, list[str]] = _WORDS["familiar"]


def _entries() -> Iterator[tuple[str, Word]]:
    """Yield phrases and their words; of equal phrases the first counts."""
    yield from _names()
    yield from _modifiers()
    yield from _settings()
    yield from _relations()
    yield from _neighbours()
    for kind, phrases in _WORDS["not_shown"].items():
        yield from ((phrase, Word("not shown", kind)) for phrase in phrases)
    yield from ((phrase, Word("negation")) for phrase in _WORDS["negation"]["words"])
    yield from _grammar()
    for phrases in _WORDS["harmless"].values():
        yield from ((phrase, Word("harmless", phrase)) for phrase in phrases)


def _names() -> Iterator[tuple[str, Word]]:
    colours = _WORDS["colour_names"]
    for name in BY_NAME:
        yield from _numbered(name, Word("name", name, colour=colours.get(name, "")))
    for kind in KINDS:
        yield from _numbered(kind, Word("kind", kind))
    for kind, phrases in _WORDS["kinds"].items():
        for phrase in phrases:
            yield from _numbered(phrase, Word("kind", kind))
    for table, wider in (("synonyms", False), ("narrowed", True)):
        for name, phrases in _WORDS[table].items():
            for phrase in phrases:
                yield from _numbered(phrase, Word("name", name, wider=wider))


def _numbered(phrase: str, word: Word) -> Iterator[tuple[str, Word]]:
    """Yield a phrase and its plurals, also a regular one: "monarchs"."""
    yield phrase, word
    for form in {plural(phrase), phrase if phrase.endswith("s") else f"{phrase}s"} - {phrase}:
        yield form, replace(word, plural=True)


def _modifiers() -> Iterator[tuple[str, Word]]:
    for number, numerals in COUNTS.items():
        yield from ((numeral, Word("number", str(number))) for numeral in numerals if numeral != "a")
    for value, phrases in _WORDS["numbers"].items():
        yield from ((phrase, Word("number", value)) for phrase in phrases)
    for size, wordings in SIZE_WORDS.items():
        yield from (
            (wording, Word("size", size))
            for wording in (*wordings, *_WORDS["sizes"].get(size, ()))
            if wording
        )
    for colour in NAMED:
        yield from (
            (phrase, Word("colour", colour)) for phrase in (colour, *_WORDS["colours"].get(colour, ()))
        )


def _settings() -> Iterator[tuple[str, Word]]:
    for field, table in (("background", "places"), ("light", "lights"), ("weather", "weathers")):
        for value, phrases in _WORDS[table].items():
            yield from ((phrase, Word("setting", value, fields=((field, value),))) for phrase in phrases)
    bright = Word("setting", "day", fields=(("light", "day"), ("weather", "clear")))
    yield from ((phrase, bright) for phrase in _WORDS["bright"]["words"])


def _relations() -> Iterator[tuple[str, Word]]:
    joints = ("and", "with")
    for relation, phrases in _WORDS["relations"].items():
        for phrase in (*RELATION_WORDS.get(relation, ()), *phrases):
            if phrase not in joints:
                yield phrase, Word("relation", relation)
    for side, phrases in _WORDS["sides"].items():
        yield from ((phrase, Word("side", side)) for phrase in phrases)


def _neighbours() -> Iterator[tuple[str, Word]]:
    for group, table in _NEIGHBOURS.items():
        for nearest, phrases in table.items():
            for phrase in phrases:
                word = Word("neighbour", group, nearest=(nearest,) if nearest else ())
                yield from _numbered(phrase, word)


def _grammar() -> Iterator[tuple[str, Word]]:
    roles: Mapping[str, Role] = {
        "articles": "article",
        "joints": "joint",
        "companions": "companion",
        "inside": "inside",
        "pronouns": "pronoun",
        "copies": "copy",
        "groups": "group",
        "all": "all",
        "fillers": "filler",
    }
    for table, role in roles.items():
        yield from ((phrase, Word(role, phrase)) for phrase in _WORDS["grammar"][table])


def _joined(key: _Key) -> Iterator[_Key]:
    """Yield a phrase's words with two neighbours written together: "icecream van"."""
    for at in range(len(key) - 1):
        yield (*key[:at], key[at] + key[at + 1], *key[at + 2 :])


def _build() -> dict[_Key, Word]:
    lexicon: dict[_Key, Word] = {}
    for phrase, word in _entries():
        lexicon.setdefault(_key(phrase), word)
    for key, word in list(lexicon.items()):
        if word.role in ("name", "setting"):
            for joined in _joined(key):
                lexicon.setdefault(joined, word)
    return lexicon


LEXICON: Mapping[_Key, Word] = _build()
_LONGEST = max(map(len, LEXICON))
VOCABULARY = frozenset(part for key in LEXICON for part in key)  # of phrases too, which may be in parts


def _correctable() -> set[str]:
    """Return the words of names, and single words of other meaning, that have five letters or more."""
    names = {part for phrase, _ in _names() for part in _key(phrase)}
    keys = ((_key(phrase), word) for phrase, word in (*_modifiers(), *_settings()))
    others = {key[0] for key, word in keys if len(key) == 1 and word.role != "number"}
    roles = ("name", "kind", "setting", "colour", "size", "unknown")
    return {
        part
        for part in names | others
        if len(part) >= 5 and LEXICON.get((part,), Word("unknown")).role in roles
    }


_CORRECTABLE = sorted(_correctable())


def _distance(first: str, second: str) -> int:
    """Return the number of letters added, left out, changed or swapped with the next (Damerau, 1964)."""
    rows = [list(range(len(second) + 1))]
    for i, letter in enumerate(first, start=1):
        row = [i]
        for j, other in enumerate(second, start=1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != other)))
            if i > 1 and j > 1 and letter == second[j - 2] and other == first[i - 2]:
                row[j] = min(row[j], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]


@lru_cache(maxsize=4096)
def corrected(word: str) -> str:
    """Return the word of the world that a misspelt word means; the word itself if there is none."""
    if word in VOCABULARY or word in _REAL or len(word) < 5:
        return word
    reach = 1 if len(word) < 9 else 2
    near = [other for other in _CORRECTABLE if abs(len(other) - len(word)) <= reach and other[0] == word[0]]
    best = min(near, key=lambda other: _distance(word, other), default=word)
    return best if _distance(word, best) <= reach else word


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without accents and apostrophes, and its marks."""
    return [token.key for token in _tokens(text)]


def begins(words: Sequence[str], phrases: Sequence[str]) -> int:
    """Return the number of words of the longest phrase with which words begin, 0 for none."""
    text = " ".join(words) + " "
    return max((len(phrase.split()) for phrase in phrases if text.startswith(f"{phrase} ")), default=0)


def is_question(text: str) -> bool:
    """Return whether a text asks something, which "can you draw a robin?" and "how about a robin?" do not."""
    words = [word for word in words_of(text) if word[0].isalnum()]
    words = words[begins(words, QUESTIONS["courtesies"]) :]
    if begins(words, QUESTIONS["proposals"]) or " look like " in f" {' '.join(words)} ":
        return False
    if begins(words, QUESTIONS["of_state"]):
        return True
    has_verb = not set(words[1:4]).isdisjoint(QUESTIONS["of_state"]) and words[1] not in QUESTIONS["subjects"]
    return bool(begins(words, QUESTIONS["interrogatives"])) and (has_verb or text.rstrip().endswith("?"))


def _tokens(text: str) -> Iterator[_Token]:
    plain = text.replace("\u2019", "'").replace("\u2018", "'").replace("St. ", "St ")
    for match in _TOKEN.finditer(unicodedata.normalize("NFKC", plain)):
        yield _Token(_plain(match[0]).replace("'", ""), match[0])


def scan(text: str) -> tuple[list[Item], dict[str, str]]:
    """Return the items of a text, longest phrases first, and its corrected words."""
    tokens, corrections = list(_tokens(text)), {}
    for at, token in enumerate(tokens):
        spelling = corrected(token.key)
        if spelling != token.key:
            corrections[token.text] = spelling
            tokens[at] = _Token(spelling, token.text)
    items, at = [], 0
    while at < len(tokens):
        word, length = _longest(tokens[at : at + _LONGEST])
        phrase = " ".join(token.text for token in tokens[at : at + length])
        is_possessive = word.plural and phrase.endswith("'s")
        items.append(Item(Word("unknown") if is_possessive else word, phrase))
        at += length
    return items, corrections


def _longest(tokens: list[_Token]) -> tuple[Word, int]:
    """Return the word of the longest phrase at the start of the tokens, and its number of tokens."""
    if tokens[0].key in _MARKS:
        return _MARKS[tokens[0].key], 1
    for length in range(len(tokens), 0, -1):
        word = LEXICON.get(tuple(token.key for token in tokens[:length]))
        if word is not None:
            return word, length
        if length == 2 and (word := _in_two(tokens[0].key, tokens[1].key)) is not None:
            return word, length
    return _by_form(tokens[0].key), 1


def _in_two(first: str, second: str) -> Word | None:
    """Return the species whose name is in two words: "sea horse"; not "gold fish", which is a colour."""
    word, alone = LEXICON.get((first + second,)), LEXICON.get((first,))
    is_separate = first in NAMED or (alone is not None and alone.role == "article")  # "gold fish", "her on"
    return word if word and word.role == "name" and not is_separate else None


def _by_form(word: str) -> Word:
    """Return the role of a word that the lexicon does not have: a number, an adverb, or unknown."""
    if word.isdecimal():
        return Word("number", word if word in ("1", "2", "3") else MANY)
    is_adverb = word.endswith("ly") and not word.endswith("fly") and len(word) > 6
    return Word("harmless") if is_adverb else Word("unknown")


def names_like(items: Sequence[Item]) -> tuple[str, ...]:
    """Return up to three names of the world that are nearest to what some words name, best first."""
    listed = [name for item in items for name in item.word.nearest]
    last = items[-1]
    ending = ending_with(last.text)
    named = [last.word.value] if last.role in ("name", "kind") else []
    spelt = [] if listed else get_close_matches(" ".join(_key(last.text)), [*BY_NAME, *KINDS], 2, 0.75)
    related = [name for name in listed + ending if name in BY_NAME]
    kin = _FAMILIAR[BY_NAME[related[0]].kind] if related else ()
    return tuple(dict.fromkeys((*listed, *ending, *named, *spelt, *kin)))[:3]


def ending_with(text: str) -> list[str]:
    """Return the species whose name of several words ends with the last word of a text: "luna moth"."""
    word = _key(text)[-1]
    return [
        name for name in BY_NAME if len(_key(name)) > 1 and word in (_key(name)[-1], _key(plural(name))[-1])
    ]
