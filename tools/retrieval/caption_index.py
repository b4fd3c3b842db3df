"""Index of the words of captions with BM25, in memory or stored beside the vectors.

After Robertson et al. (1994) in Lucene's form, k1 1.5, b 0.75. A word is a run of letters and digits,
without case, accents, possessive and plural endings; English function words and words for "picture" are
ignored. Of several captions of an image each counts by itself, and the best one decides. Not covered:
synonyms, other word endings, and languages written without spaces.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import numpy as np

from pleinair.tools.retrieval.manifest import REBUILD
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")
_POSSESSIVE = re.compile(r"['’]s\b")
_ACCENTS = re.compile("[\u0300-\u036f]")
_IGNORED = frozenset(
    "photo photos photograph photographs photography picture pictures pic pics image images snapshot showing "
    "shows depicting depicts please my your our his her its some any".split()
)
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
    "people": "person",
    "oxen": "ox",
}
# what follows one of these, or a comma, is where the thing is and not what it is
_PLACE = re.compile(
    r",|;|\b(?:on|in|at|with|by|near|under|over|beside|behind|against|inside|among|from|during|next to|in "
    r"front of)\b"
)
_SHARE = 0.7  # of the weight of a query's words that a caption must have
_LEAST_SHARE = 0.25  # the same where the caption has no other word
_STARTS = "starts.npy"


def words(text: str) -> list[str]:
    """Split a text into the words that count, in lower case and without plural endings."""
    return [_stem(word) for word in _inflected(text)]


def _inflected(text: str) -> list[str]:
    """Split a text into the words that count, in lower case and with their plural endings."""
    from bm25s.stopwords import STOPWORDS_EN

    plain = _ACCENTS.sub("", normalize("NFKD", normalize("NFKC", text).casefold()))
    split = _WORD.findall(_POSSESSIVE.sub("", normalize("NFC", plain)))
    return [word for word in split if word not in STOPWORDS_EN and word not in _IGNORED]


def is_in_number(caption: str, query: str) -> bool:
    """Return whether no word for the query's thing is in a caption in the other number only.

    "Two finches" is in another number than "a finch" and "a finch on the rocks".
    """
    stated = set(_inflected(caption))
    stems = {_stem(word) for word in stated}
    return all(word in stated or _stem(word) not in stems for word in _core(query, _inflected))


def core_words(text: str) -> list[str]:
    """Return the words of a text that name the thing: those before its place, or all where there are none."""
    return _core(text, words)


def _core(text: str, split: Callable[[str], list[str]]) -> list[str]:
    return next(filter(None, map(split, _PLACE.split(text.casefold()))), split(text))


def _stem(word: str) -> str:
    """Return one form for the singular and the plural of an English noun; it need not be a word."""
    word = _IRREGULAR.get(word, word)
    if len(word) > 3 and word.endswith("s") and word[-2] not in "siu":
        word = word[:-1]
    if word.endswith("ve"):  # wolves, wolf; knives, knife
        return f"{word[:-2]}f"
    if word.endswith("fe"):
        return word[:-1]
    if word.endswith(("ie", "y")):  # cherries, cherry
        return f"{word[:-1].removesuffix('i')}i"
    return word[:-1] if word.endswith(("se", "xe", "ze", "oe", "che", "she")) else word  # foxes, fox


@dataclass(frozen=True)
class CaptionIndex:
    """BM25 index of the captions of images, in their order."""

    starts: NDArray[np.int64]  # of each image, the number of its first caption; its others follow
    captions: int
    index: Any  # of bm25s; None if no caption has a word that counts

    @classmethod
    def build(cls, captions: Iterable[str]) -> CaptionIndex:
        """Build the index of every image's captions, one a line."""
        import bm25s

        starts: list[int] = []
        texts: list[list[str]] = []
        for caption in captions:
            starts.append(len(texts))
            texts += [words(line) for line in caption.split("\n")]
        _silence()
        index = bm25s.BM25() if any(texts) else None
        if index:
            index.index(texts, show_progress=False)
        return cls(np.array(starts, dtype=np.int64), len(texts), index)

    @classmethod
    def load(cls, folder: Path) -> CaptionIndex:
        """Map a stored index into memory; raise `BadInput` if it cannot be read."""
        import bm25s

        _silence()
        try:
            starts = np.load(folder / _STARTS, mmap_mode="r", allow_pickle=False)
            index = bm25s.BM25.load(folder, mmap=True, load_corpus=False)
            return cls(starts[:-1], int(starts[-1]), index)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise BadInput(f"The captions' words in {folder} cannot be read ({error}).", REBUILD) from None

    def save(self, folder: Path) -> None:
        """Write the index, which has words, into a new folder."""
        self.index.save(folder)
        np.save(folder / _STARTS, np.append(self.starts, self.captions))

    def scores(self, query: str) -> NDArray[np.float32]:
        """Return each image's score for a query, float32 [images], that of its best caption."""
        terms = words(query)
        if self.index is None or not terms:
            return np.zeros(len(self.starts), np.float32)
        best: NDArray[np.float32] = np.maximum.reduceat(self.index.get_scores(terms), self.starts)
        return best

    def is_match(self, caption: str, query: str) -> bool:
        """Return whether a line of an image's caption, by itself, has the distinctive words of a query.

        It must have 70 % of their weight, of all or of those that name the thing; or its own words are all
        of the query, the thing's last word among them. A word in no caption weighs most.
        """
        return any(self._matches(set(words(line)), query) for line in caption.split("\n"))

    def _matches(self, caption: set[str], query: str) -> bool:
        terms, core = words(query), core_words(query)
        if max(self._share(terms, caption), self._share(core, caption)) >= _SHARE:
            return True
        is_part = bool(core) and core[-1] in caption and caption <= set(terms)
        return is_part and self._share(core, caption) >= _LEAST_SHARE

    def _share(self, terms: Iterable[str], caption: set[str]) -> float:
        """Return the share of the words' weight (Lucene's idf) that is in the caption."""
        weights = {term: self._weight(term) for term in terms}
        total = sum(weights.values())
        return sum(weight for term, weight in weights.items() if term in caption) / total if total else 0.0

    def _weight(self, term: str) -> float:
        count = self._count(term)
        return math.log(1 + (self.captions - count + 0.5) / (count + 0.5))

    def _count(self, term: str) -> int:
        """Return the number of captions with a word."""
        number = self.index.vocab_dict.get(term) if self.index else None
        if number is None:
            return 0
        ends = self.index.scores["indptr"]
        return int(ends[number + 1] - ends[number])


def _silence() -> None:
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
