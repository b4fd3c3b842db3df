"""Words of a prompt that look like a word of the library's captions, but are written in another way.

The captions' words lie beside the index, so that a request is checked without opening the library. A word is
only suggested where it is sure to be meant: letters of another script that look alike; or one letter more,
less, other or exchanged, in a long word or beside a word that stands beside it in a caption too. Not covered:
libraries that were never indexed, and words of fewer than four letters.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from pleinair.tools.storage.files import write_whole

FILE = "words.json"
MOST = 200_000  # words and pairs that are stored
SHORTEST, LONG = 4, 7  # letters of a word that is checked, and of one that needs no neighbour
_CANDIDATES, _SIMILAR = 5, 0.7  # of difflib; more than one letter apart is dropped afterwards
# words that stand beside anything
_COMMON = frozenset(
    "a an the in on at of my his her our and or with by to for from over under near is are".split()
)
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
# Cyrillic and Greek letters that look like Latin ones, after the confusables of Unicode TR 39
_ALIKE = str.maketrans(
    "авсԁеһіјӏкмнорԛѕтυѵԝхуαεικνορτυχγϲϳ",
    "abcdehijlkmhopqstuvwxyaeikvoptuxycj",
)


@dataclass(frozen=True)
class Vocabulary:
    """Words of captions in lower case, and pairs of neighbours as "first second"."""

    words: frozenset[str]
    pairs: frozenset[str]


def vocabulary_of(captions: Iterable[str]) -> Vocabulary:
    """Return the words and neighbours of captions."""
    words, pairs = set[str](), set[str]()
    for caption in captions:
        if len(words) + len(pairs) >= MOST:
            break
        line = _words(caption)
        words.update(line)
        neighbours = zip(line, line[1:], strict=False)
        pairs.update(f"{first} {second}" for first, second in neighbours if not {first, second} & _COMMON)
    return Vocabulary(frozenset(words), frozenset(pairs))


def save_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Write a vocabulary beside an index; raises `PleinairError` if the disk is full."""
    content = {"words": sorted(vocabulary.words), "pairs": sorted(vocabulary.pairs)}
    write_whole(folder / FILE, json.dumps(content, ensure_ascii=False).encode())


def load_vocabulary(folder: Path) -> Vocabulary | None:
    """Read the vocabulary beside an index; None if there is none that can be read."""
    try:
        content = json.loads((folder / FILE).read_bytes())
        return Vocabulary(frozenset(map(str, content["words"])), frozenset(map(str, content["pairs"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def suggestions(prompt: str, vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    """Yield each word of a prompt that is probably misspelt, in lower case, with what may be meant."""
    line = _words(prompt)
    for number, word in enumerate(line):
        if word in vocabulary.words or len(word) < SHORTEST:
            continue
        before, after = line[max(number - 1, 0) : number], line[number + 1 : number + 2]
        plain = normalize("NFKD", word).translate(_ALIKE)
        if plain != word and plain in vocabulary.words:
            yield word, plain
        elif meant := _meant(word, "".join(before), "".join(after), vocabulary):
            yield word, meant


def _words(text: str) -> list[str]:
    return [word.casefold().replace("’", "'") for word in _WORD.findall(normalize("NFKC", text))]


def _meant(word: str, before: str, after: str, vocabulary: Vocabulary) -> str:
    """Return the word that a misspelt one means, "" if none is sure; a plural means its singular."""
    if word.removesuffix("s") in vocabulary.words or f"{word}s" in vocabulary.words:
        return ""
    candidates = [other for other in vocabulary.words if abs(len(other) - len(word)) <= 1]
    for other in difflib.get_close_matches(word, candidates, _CANDIDATES, _SIMILAR):
        has_neighbour = {f"{before} {other}", f"{other} {after}"} & vocabulary.pairs
        if is_one_letter_apart(word, other) and (has_neighbour or len(word) >= LONG):
            return other
    return ""


def is_one_letter_apart(first: str, second: str) -> bool:
    """Return whether one letter was added, left out, replaced, or exchanged with its neighbour."""
    start = next((at for at, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
    if start is None:
        return abs(len(first) - len(second)) == 1
    left, right = first[start:], second[start:]
    exchanged = left[:2] == right[1::-1] and left[2:] == right[2:]
    return exchanged or left[1:] == right[1:] or left[1:] == right or left == right[1:]
