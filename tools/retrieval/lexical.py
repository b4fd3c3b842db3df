"""Retrieve images by the words of their captions.

Indexing 100,000 captions of ten words takes some six seconds: once a library, whose index is stored beside
its vectors; once a process for images of other retrievers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from pleinair.tools.locks import Once
from pleinair.tools.retrieval.caption_index import CaptionIndex, is_in_number
from pleinair.tools.retrieval.catalogue import Entries
from pleinair.tools.retrieval.filters import Wrapper
from pleinair.tools.retrieve import check_query
from pleinair.tools.types import Hit, ImageSource, Searcher

if TYPE_CHECKING:
    from numpy.typing import NDArray

RERANKED = 6  # hits of which the captions are compared: ImageRAG's three of either encoder
_INDEXING = Lock()


def score_captions(entries: Sequence[Hit], query: str) -> list[float]:
    """Score each entry's caption for a query, the best of several; 0 if they share no word that counts."""
    scores: list[float] = _captions_of(entries).scores(query).tolist()
    return scores


class _ByCaptions(Wrapper):
    """Base of retrievers that score the captions of all entries, which are listed once."""

    def __init__(self, source: ImageSource, searcher: Searcher | None = None, /) -> None:
        super().__init__(source, searcher)
        self._listed = Once(source.entries)  # a cached property would have one lock for all retrievers

    @property
    def _entries(self) -> Sequence[Hit]:
        return self._listed()

    def entries(self) -> Sequence[Hit]:
        """List the images of the library."""
        return self._entries

    @cached_property
    def _captions(self) -> CaptionIndex:
        return _captions_of(self._entries)


class Lexical(_ByCaptions):
    """Retriever of the images whose captions share words with the query.

    A hit's score is BM25, over 0 and without an upper bound; it grows with the number of words in the query,
    so it compares the hits of one query only. Without a shared word there is no hit. A hit whose caption has
    the distinctive words of the query is matched by its caption.
    """

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, best first, equal ones in the library's order.

        Raise `BadInput` as dense retrieval does.
        """
        check_query(query, k)
        scores = self._captions.scores(query)
        if selection := self.selection:
            scores = np.where(selection.mask, scores, 0)
        return [self._hit(row, float(scores[row]), query) for row in _best(scores, k)]

    def _hit(self, row: int, score: float, query: str) -> Hit:
        entry = self._entries[row]
        match = "caption" if self._captions.is_match(entry.caption, query) else ""
        return entry.model_copy(update={"score": score, "score_kind": "bm25", "matched_by": match})


class CaptionOrder(_ByCaptions):
    """Retriever that orders another one's best hits by BM25 of their captions.

    The first `max(k, RERANKED)` hits are compared. Hits keep their scores, and those without a shared word
    follow in their order. The words are weighted by the whole library.
    """

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, those with the nearest captions first."""
        hits = super().search(query, max(k, RERANKED), seed)
        scores = self._captions.scores(query)
        return sorted(hits, key=lambda hit: -scores[self._row(hit.id)])[:k]

    @cached_property
    def _row(self) -> Callable[[str], int]:
        if isinstance(self._entries, Entries):
            return self._entries.row
        return {entry.id: row for row, entry in enumerate(self._entries)}.__getitem__


class NumberOrder(Wrapper):
    """Retriever that puts hits last whose captions name the thing in another number than the query.

    In an image of two finches each is smaller than one alone, and a generator that draws one copies both.
    """

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, those in the query's number first, else in their order."""
        hits = super().search(query, k, seed)
        return sorted(hits, key=lambda hit: not is_in_number(hit.caption, query))


def _best(scores: NDArray[np.float32], k: int) -> list[int]:
    """Return the rows of the `k` best scores over 0, best first, equal ones in their order."""
    rows = np.flatnonzero(scores > 0)
    if len(rows) > k:  # sort those only that may be among them
        least = np.partition(scores[rows], -k)[-k]
        rows = rows[scores[rows] >= least]
    ordered: list[int] = rows[np.lexsort((rows, -scores[rows]))][:k].tolist()
    return ordered


def _captions_of(entries: Sequence[Hit]) -> CaptionIndex:
    if isinstance(entries, Entries) and entries.captions:
        return entries.captions
    with _INDEXING:  # concurrent retrievals wait for one index instead of building it several times
        return _index(tuple(entry.caption for entry in entries))


@lru_cache(maxsize=4)
def _index(captions: tuple[str, ...]) -> CaptionIndex:
    return CaptionIndex.build(captions)
