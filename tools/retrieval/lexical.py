"""Retrieve images by the words of their captions with BM25.

After Robertson et al. (1994) in Lucene's form, k1 1.5, b 0.75. A word is a run of letters and digits,
without case, accents, possessive and plural endings; English function words and words for "picture" are
ignored. Of several captions of an image each counts by itself, and the best one decides. Not covered:
synonyms, other word endings, and languages written without spaces. Indexing 100,000 captions of ten words
takes some six seconds, once a process.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from threading import Lock
from typing import Any
from unicodedata import normalize

import numpy as np

from pleinair.tools.retrieval.filters import Wrapper
from pleinair.tools.retrieve import check_query
from pleinair.tools.types import Hit

RERANKED = 6  # hits of which the captions are compared: ImageRAG's three of either encoder
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
_SHARE = 0.5  # of the weight of a query's words that a caption must have
_LEAST_SHARE = 0.25  # the same where the caption has no other word
_INDEXING = Lock()


def words(text: str) -> list[str]:
    """Split a text into the words that count, in lower case and without plural endings."""
    from bm25s.stopwords import STOPWORDS_EN

    plain = _ACCENTS.sub("", normalize("NFKD", normalize("NFKC", text).casefold()))
    split = _WORD.findall(_POSSESSIVE.sub("", normalize("NFC", plain)))
    return [_stem(word) for word in split if word not in STOPWORDS_EN and word not in _IGNORED]


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


def score_captions(entries: Sequence[Hit], query: str) -> list[float]:
    """Score each entry's caption for a query, the best of several; 0 if they share no word that counts."""
    return _captions_of(entries).scores(query)


@dataclass(frozen=True)
class _Captions:
    """Captions of a library with their words, how many captions have each, and the BM25 index of them."""

    texts: list[list[str]]
    starts: list[int]  # of each image, the row of its first caption; its others follow
    counts: Counter[str]
    index: Any  # None if no caption has a word that counts

    def scores(self, query: str) -> list[float]:
        terms = words(query)
        if self.index is None or not terms:
            return [0.0] * len(self.starts)
        best: list[float] = np.maximum.reduceat(self.index.get_scores(terms), self.starts).tolist()
        return best

    def is_match(self, image: int, query: str) -> bool:
        """Return whether a caption of an image, by itself, has the distinctive words of a query.

        It must have half of them, of all or of those that name the thing; or its own words are all of the
        query, the thing's last word among them. A word in no caption weighs most.
        """
        end = self.starts[image + 1] if image + 1 < len(self.starts) else len(self.texts)
        return any(self._matches(set(text), query) for text in self.texts[self.starts[image] : end])

    def _matches(self, caption: set[str], query: str) -> bool:
        terms = words(query)
        core = next(filter(None, map(words, _PLACE.split(query.casefold()))), terms)
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
        count = self.counts[term]
        return math.log(1 + (len(self.texts) - count + 0.5) / (count + 0.5))


class _ByCaptions(Wrapper):
    """Base of retrievers that score the captions of all entries, which are listed once."""

    @cached_property
    def _entries(self) -> Sequence[Hit]:
        return self._source.entries()

    def entries(self) -> Sequence[Hit]:
        """List the images of the library."""
        return self._entries

    @cached_property
    def _captions(self) -> _Captions:
        return _captions_of(self._entries)


class Lexical(_ByCaptions):
    """Retriever of the images whose captions share words with the query.

    A hit's score is BM25, over 0 and without an upper bound; it grows with the number of words in the query,
    so it compares the hits of one query only. Without a shared word there is no hit. A hit whose caption has
    the distinctive words of the query is matched by its caption.
    """

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, best first, ties by id; raise `BadInput` as dense retrieval does."""
        check_query(query, k)
        scores = self._captions.scores(query)
        rows = [row for row, score in enumerate(scores) if score > 0]
        rows.sort(key=lambda row: (-scores[row], self._entries[row].id))
        return [self._hit(row, scores[row], query) for row in rows[:k]]

    def _hit(self, row: int, score: float, query: str) -> Hit:
        match = "caption" if self._captions.is_match(row, query) else ""
        update = {"score": score, "score_kind": "bm25", "matched_by": match}
        return self._entries[row].model_copy(update=update)


class CaptionOrder(_ByCaptions):
    """Retriever that orders another one's best hits by BM25 of their captions.

    The first `max(k, RERANKED)` hits are compared. Hits keep their scores, and those without a shared word
    follow in their order. The words are weighted by the whole library.
    """

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, those with the nearest captions first."""
        hits = super().search(query, max(k, RERANKED), seed)
        scored = zip(self._entries, self._captions.scores(query), strict=True)
        scores = {entry.id: score for entry, score in scored}
        return sorted(hits, key=lambda hit: -scores[hit.id])[:k]


def _captions_of(entries: Sequence[Hit]) -> _Captions:
    with _INDEXING:  # concurrent retrievals wait for one index instead of building it several times
        return _index(tuple(entry.caption for entry in entries))


@lru_cache(maxsize=4)
def _index(captions: tuple[str, ...]) -> _Captions:
    import bm25s

    lines = [caption.split("\n") for caption in captions]
    starts = list(accumulate(map(len, lines[:-1]), initial=0)) if lines else []
    texts = [words(line) for of_image in lines for line in of_image]
    counts = Counter(word for text in texts for word in set(text))
    if not counts:
        return _Captions(texts, starts, counts, None)
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
    index = bm25s.BM25()
    index.index(texts, show_progress=False)
    return _Captions(texts, starts, counts, index)
