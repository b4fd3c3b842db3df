"""Retrievers on top of others: filtered by license, id or likeness, or merged from several.

A filter is a function from all hits so far, best first, to those that pass; what it decides about a hit may
depend on the better hits alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, cast

from pleinair.tools.images.reading import BadPicture
from pleinair.tools.realrag import Training, search_away, training_of
from pleinair.tools.retrieval.licenses import spdx
from pleinair.tools.retrieve import search
from pleinair.tools.types import Hit, ImageSource, Retriever, Searcher

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Vectors

Keep = Callable[[Sequence[Hit]], list[Hit]]


class Wrapper:
    """Retriever with the images and the training of another source, and the search of it or of `searcher`."""

    def __init__(self, source: ImageSource, searcher: Searcher | None = None, /) -> None:
        self._source = source
        self._searcher = searcher or cast(Searcher, source)

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, best first."""
        return search(self._searcher, query, k, seed)

    @property
    def training(self) -> Training | None:
        """Return the training of the retriever below, None for an untrained one."""
        return training_of(self._source)

    def open(self, id: str) -> Image:
        """Open an image of the library."""
        return self._source.open(id)

    def entries(self) -> Sequence[Hit]:
        """List the images of the library."""
        return self._source.entries()


class Filtered(Wrapper):
    """Retriever that passes on the hits a filter keeps, and asks for more until there are `k`."""

    def __init__(self, retriever: Retriever, keep: Keep, *, filter_entries: bool = True) -> None:
        super().__init__(retriever)
        self._retriever, self._keep, self._filter_entries = retriever, keep, filter_entries

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, best first."""
        return self._fill(lambda size: search(self._retriever, query, size, seed), k)

    def search_away(self, query: str, away: Image, weight: float, k: int) -> list[Hit]:
        """Search near a text and far from an image; raise `BadInput` if the retriever below cannot."""
        return self._fill(lambda size: search_away(self._retriever, query, away, weight=weight, k=size), k)

    def entries(self) -> Sequence[Hit]:
        """List the images of the library that the filter keeps, or all without `filter_entries`."""
        entries = self._retriever.entries()
        return self._keep(entries) if self._filter_entries else entries

    def _fill(self, search: Callable[[int], list[Hit]], k: int) -> list[Hit]:
        size = 2 * k
        while True:
            hits = search(size)
            passed = self._keep(hits)
            if len(passed) >= k or len(hits) < size:
                return passed[:k]
            size *= 4


class Merged(Wrapper):
    """Retriever that merges the hits of several retrievers of one library."""

    def __init__(
        self,
        retrievers: Sequence[Retriever],
        merge: Callable[[Sequence[Sequence[Hit]]], list[Hit]],
        depth: Callable[[int], int],
        *,
        vector: Callable[[str], Vectors] | None = None,
        filtered: bool = False,
    ) -> None:
        """Merge the first `depth(k)` hits of each retriever by `merge`; images are opened by the first one.

        Copies are recognised by `vector`; with `filtered` the hits are filtered already and are not again.
        """
        super().__init__(retrievers[0])
        self._retrievers, self._merge, self._depth = retrievers, merge, depth
        self.vector, self.filtered = vector, filtered

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, in the order of the merged list."""
        size = self._depth(k)
        return self._merge([search(retriever, query, size, seed) for retriever in self._retrievers])[:k]


def by_license(licenses: Collection[str]) -> Keep:
    """Build a filter by license, in any spelling that `spdx` reads; without one it is "unknown"."""
    allowed = {spdx(license).casefold() for license in licenses}
    return lambda hits: [hit for hit in hits if spdx(hit.license).casefold() in allowed]


def without(ids: Collection[str]) -> Keep:
    """Build a filter that removes some images."""
    removed = frozenset(ids)
    return lambda hits: [hit for hit in hits if hit.id not in removed]


def distinct(vector: Callable[[str], Vectors], most: float) -> Keep:
    """Build a filter that removes a hit whose vector has a cosine over `most` to that of a better hit."""

    def keep(hits: Sequence[Hit]) -> list[Hit]:
        passed: list[Hit] = []
        vectors: list[Vectors] = []
        for hit in hits:
            candidate = vector(hit.id)
            if not any(float(candidate @ better) > most for better in vectors):
                passed.append(hit)
                vectors.append(candidate)
        return passed

    return keep


def readable(open: Callable[[str], Image], *, copies: bool) -> Keep:
    """Build a filter that removes unreadable files and, without `copies`, images of equal pixels."""
    digests: dict[str, str] = {}  # by id, "" for an unreadable file; each is read once

    def digest(id: str) -> str:
        if id not in digests:
            try:
                image = open(id)
                digests[id] = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
            except BadPicture:
                digests[id] = ""
        return digests[id]

    def keep(hits: Sequence[Hit]) -> list[Hit]:
        passed = [hit for hit in hits if digest(hit.id)]
        if copies:
            return passed
        best: dict[str, Hit] = {}
        for hit in passed:
            best.setdefault(digest(hit.id), hit)
        return list(best.values())

    return keep
