"""Find pictures by the words of their captions: BM25 (Robertson et al., 1994; Lucene's form), k1 1.5, b 0.75.

A word is a run of letters and digits in any case; English function words and words for "picture" say nothing
of its subject and do not count. Not covered: stems, synonyms, and languages written without spaces. 100,000
captions of ten words take some six seconds to index, once in a process.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from pleinair.tools.types import BadInput, Hit, Retriever

if TYPE_CHECKING:
    from PIL.Image import Image

WORD = re.compile(r"\w+")
SILENT = frozenset({"photo", "photos", "photograph", "picture", "pictures", "image", "images"})
INDEXING = Lock()
RERANKED = 6  # hits of which the captions are compared: ImageRAG's three of either encoder


def words(text: str) -> list[str]:
    """Split a text into the words that count, in small letters."""
    from bm25s.stopwords import STOPWORDS_EN

    found = WORD.findall(text.casefold())
    return [word for word in found if word not in STOPWORDS_EN and word not in SILENT]


def score_captions(entries: Sequence[Hit], query: str) -> list[float]:
    """Score each entry's caption for a query: 0 where they share no word that counts."""
    captions = tuple(entry.caption for entry in entries)
    with INDEXING:  # look-ups run at once, and only one of them is to spend the seconds
        index = _index(captions)
    asked = words(query)
    scores: list[float] = index.get_scores(asked).tolist() if index and asked else [0.0] * len(entries)
    return scores


class Lexical:
    """Answer with the pictures whose captions share words with the query; implements `Retriever`.

    A hit's score is BM25, over 0 and without an upper bound, and grows with the query's words: it compares
    the hits of one query and nothing else. Where no caption shares a word there is no hit.
    """

    def __init__(self, library: Retriever) -> None:
        self._library = library

    def search(self, query: str, k: int) -> list[Hit]:
        """Find up to `k` pictures, best first, ties by id; raise `BadInput` as dense retrieval does."""
        if k < 1:
            raise BadInput(f"`k` is {k}, wanted 1 or more.")
        if not query.strip():
            raise BadInput("The query is empty; say in words what the picture should show.")
        scores = zip(self._entries, score_captions(self._entries, query), strict=True)
        found = [entry.model_copy(update={"score": score}) for entry, score in scores if score > 0]
        return sorted(found, key=lambda hit: (-hit.score, hit.id))[:k]

    def open(self, id: str) -> Image:
        """Open a picture of the library."""
        return self._library.open(id)

    def entries(self) -> Sequence[Hit]:
        """List the pictures of the library."""
        return self._entries

    @cached_property
    def _entries(self) -> Sequence[Hit]:
        return self._library.entries()


class CaptionOrder:
    """Order another retriever's best hits by BM25 of their captions; implements `Retriever`.

    The first `max(k, RERANKED)` hits are compared. Only the order changes: a hit keeps its score, and hits
    without a shared word follow as they were. The words' weights are the whole library's.
    """

    def __init__(self, found: Retriever) -> None:
        self._found = found

    def search(self, query: str, k: int) -> list[Hit]:
        """Find up to `k` pictures, those with the nearest captions first."""
        hits = self._found.search(query, max(k, RERANKED))
        scores = zip(self._entries, score_captions(self._entries, query), strict=True)
        score = {entry.id: score for entry, score in scores}
        return sorted(hits, key=lambda hit: -score[hit.id])[:k]

    def open(self, id: str) -> Image:
        """Open a picture of the library."""
        return self._found.open(id)

    def entries(self) -> Sequence[Hit]:
        """List the pictures of the library."""
        return self._entries

    @cached_property
    def _entries(self) -> Sequence[Hit]:
        return self._found.entries()


@lru_cache(maxsize=4)
def _index(captions: tuple[str, ...]) -> Any:
    """Index captions; None where no caption has a word that counts."""
    import bm25s

    texts = [words(caption) for caption in captions]
    if not any(texts):
        return None
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
    index = bm25s.BM25()
    index.index(texts, show_progress=False)
    return index
