"""Retrieve images by the words of their captions with BM25.

After Robertson et al. (1994) in Lucene's form, k1 1.5, b 0.75. A word is a run of letters and digits in any
case; English function words and words for "picture" are ignored. Not covered: stems, synonyms, and languages
written without spaces. Indexing 100,000 captions of ten words takes some six seconds, once a process.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from threading import Lock
from typing import Any

from pleinair.tools.retrieval.filters import Wrapper
from pleinair.tools.retrieve import check_query
from pleinair.tools.types import Hit

RERANKED = 6  # hits of which the captions are compared: ImageRAG's three of either encoder
_WORD = re.compile(r"\w+")
_IGNORED = frozenset({"photo", "photos", "photograph", "picture", "pictures", "image", "images"})
_INDEXING = Lock()


def words(text: str) -> list[str]:
    """Split a text into the words that count, in lower case."""
    from bm25s.stopwords import STOPWORDS_EN

    split = _WORD.findall(text.casefold())
    return [word for word in split if word not in STOPWORDS_EN and word not in _IGNORED]


def score_captions(entries: Sequence[Hit], query: str) -> list[float]:
    """Score each entry's caption for a query; 0 if they share no word that counts."""
    with _INDEXING:  # concurrent retrievals wait for one index instead of building it several times
        index = _index(tuple(entry.caption for entry in entries))
    terms = words(query)
    scores: list[float] = index.get_scores(terms).tolist() if index and terms else [0.0] * len(entries)
    return scores


class _ByCaptions(Wrapper):
    """Base of retrievers that score the captions of all entries, which are listed once."""

    @cached_property
    def _entries(self) -> Sequence[Hit]:
        return self._source.entries()

    def entries(self) -> Sequence[Hit]:
        """List the images of the library."""
        return self._entries

    def _scored(self, query: str) -> list[tuple[Hit, float]]:
        return list(zip(self._entries, score_captions(self._entries, query), strict=True))


class Lexical(_ByCaptions):
    """Retriever of the images whose captions share words with the query.

    A hit's score is BM25, over 0 and without an upper bound; it grows with the number of words in the query,
    so it compares the hits of one query only. Without a shared word there is no hit.
    """

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, best first, ties by id; raise `BadInput` as dense retrieval does."""
        check_query(query, k)
        matches = [(entry, score) for entry, score in self._scored(query) if score > 0]
        hits = [entry.model_copy(update={"score": score}) for entry, score in matches]
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]


class CaptionOrder(_ByCaptions):
    """Retriever that orders another one's best hits by BM25 of their captions.

    The first `max(k, RERANKED)` hits are compared. Hits keep their scores, and those without a shared word
    follow in their order. The words are weighted by the whole library.
    """

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, those with the nearest captions first."""
        hits = super().search(query, max(k, RERANKED), seed)
        scores = {entry.id: score for entry, score in self._scored(query)}
        return sorted(hits, key=lambda hit: -scores[hit.id])[:k]


@lru_cache(maxsize=4)
def _index(captions: tuple[str, ...]) -> Any:
    """Index captions; return None if no caption has a word that counts."""
    import bm25s

    texts = [words(caption) for caption in captions]
    if not any(texts):
        return None
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
    index = bm25s.BM25()
    index.index(texts, show_progress=False)
    return index
