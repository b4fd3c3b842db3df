"""Retrievers on top of others: filtered by license, id or likeness, or merged from several.

A filter is a function from all hits so far, best first, to the first `k` that pass; what it decides about a
hit may depend on the better hits alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, cast

from pleinair.tools.images.reading import BadPicture
from pleinair.tools.realrag import Training, search_away, training_of
from pleinair.tools.retrieval.conditions import Conditions, EmptySelection
from pleinair.tools.retrieval.exact_search import Selection
from pleinair.tools.retrieval.fusion import Keep, Same
from pleinair.tools.retrieval.licenses import admits
from pleinair.tools.retrieval.near_copies import Thumbnail, is_near_copy, thumbnail
from pleinair.tools.retrieve import open_image, search, search_all, unlicensed_of
from pleinair.tools.types import Hit, ImageSource, Retriever, Searcher

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Vectors

CLOSE = 0.9  # cosine from which two images are compared by their pixels
_REMEMBERED = 4096  # images, of 12 kB each


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

    @property
    def selection(self) -> Selection | None:
        """Return the rows to which the source limits its searches, None where it does not."""
        selection: Selection | None = getattr(self._source, "selection", None)
        return selection

    def open(self, id: str) -> Image:
        """Open an image of the library."""
        return open_image(self._source, id)

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
        return self.search_many([query], k, seed)[0]

    def search_many(self, queries: Sequence[str], k: int, seed: int = 0) -> list[list[Hit]]:
        """Search for each of several texts."""
        return self._fill(lambda texts, size: search_all(self._retriever, texts, size, seed), queries, k)

    def search_away(self, query: str, away: Image, weight: float, k: int) -> list[Hit]:
        """Search near a text and far from an image; raise `BadInput` if the retriever below cannot."""

        def search(texts: Sequence[str], size: int) -> list[list[Hit]]:
            return [search_away(self._retriever, text, away, weight=weight, k=size) for text in texts]

        return self._fill(search, [query], k)[0]

    @property
    def unlicensed(self) -> Retriever | None:
        """Return the same filter of images of all licenses, None where the license does not matter."""
        unlicensed = unlicensed_of(self._retriever)
        return unlicensed and Filtered(unlicensed, self._keep, filter_entries=self._filter_entries)

    def entries(self) -> Sequence[Hit]:
        """List the images of the library that the filter keeps, or all without `filter_entries`."""
        entries = self._retriever.entries()
        return self._keep(entries, len(entries)) if self._filter_entries else entries

    def _fill(
        self, search: Callable[[Sequence[str], int], list[list[Hit]]], queries: Sequence[str], k: int
    ) -> list[list[Hit]]:
        """Search with more and more hits until `k` of each query pass or its hits end."""
        passed: dict[int, list[Hit]] = {}
        waiting, size = list(range(len(queries))), 2 * k
        while waiting:
            rankings = search([queries[n] for n in waiting], size)
            passed |= {n: self._keep(hits, k) for n, hits in zip(waiting, rankings, strict=True)}
            ended = (len(hits) < size for hits in rankings)
            waiting = [n for n, end in zip(waiting, ended, strict=True) if len(passed[n]) < k and not end]
            size *= 4
        return [passed[n] for n in range(len(queries))]


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
        return self.search_many([query], k, seed)[0]

    def search_many(self, queries: Sequence[str], k: int, seed: int = 0) -> list[list[Hit]]:
        """Search for each of several texts."""
        size = self._depth(k)
        by_retriever = [search_all(retriever, queries, size, seed) for retriever in self._retrievers]
        return [self._merge(rankings)[:k] for rankings in zip(*by_retriever, strict=True)]


class Conditional(Wrapper):
    """Retriever among images that meet conditions, which tells what these exclude."""

    def __init__(
        self,
        retriever: Retriever,
        unlicensed: Callable[[], Retriever] | None,
        empty: Callable[[], EmptySelection | None] = lambda: None,
    ) -> None:
        """Store the retriever, what opens the same one for all licenses, and why no image meets them."""
        super().__init__(retriever)
        self._retriever, self._unlicensed, self._empty = retriever, unlicensed, empty

    def search_many(self, queries: Sequence[str], k: int, seed: int = 0) -> list[list[Hit]]:
        """Search for each of several texts."""
        return search_all(self._retriever, queries, k, seed)

    def search_away(self, query: str, away: Image, weight: float, k: int) -> list[Hit]:
        """Search near a text and far from an image; raise `BadInput` if the retriever below cannot."""
        return search_away(self._retriever, query, away, weight=weight, k=k)

    @property
    def unlicensed(self) -> Retriever | None:
        """Return the retriever of images of all licenses, None where the license does not matter."""
        return self._unlicensed() if self._unlicensed else None

    @property
    def empty(self) -> EmptySelection | None:
        """Return what keeps every image from being retrieved, None if an image meets the conditions."""
        return self._empty()


def by_license(licenses: Collection[str]) -> Keep:
    """Build a filter by license, which `admits` reads."""
    return _only(lambda hit: admits(licenses, hit.license))


def by_tags_and_side(
    conditions: Conditions, tags: Callable[[str], Collection[str]], side: Callable[[str], int]
) -> Keep:
    """Build a filter by tags and size; `tags` and `side` return those of an image by its id."""

    def passes(hit: Hit) -> bool:
        if conditions.tags and not conditions.meets_tags(tags(hit.id)):
            return False
        return not conditions.min_side or side(hit.id) >= conditions.min_side

    return _only(passes)


def without(ids: Collection[str]) -> Keep:
    """Build a filter that removes some images."""
    removed = frozenset(ids)
    return _only(lambda hit: hit.id not in removed)


def _only(passes: Callable[[Hit], bool]) -> Keep:
    return lambda hits, k: list(islice(filter(passes, hits), k))


def similar(vector: Callable[[str], Vectors], most: float, images: Images | None = None) -> Same:
    """Build a comparison by vectors: copies have a cosine over `most`, or look alike and have one of `CLOSE`.

    Without `images` the vectors decide alone.
    """

    def same(better: Hit, other: Hit) -> bool:
        cosine = float(vector(better.id) @ vector(other.id))
        return cosine > most or (images is not None and cosine >= CLOSE and images.near_copies(better, other))

    return same


class Images:
    """What is compared of the images of a source; each is read once as long as it is remembered."""

    def __init__(self, open: Callable[[str], Image]) -> None:
        self._look = lru_cache(_REMEMBERED)(lambda id: _look(open, id))
        self._near = lru_cache(16 * _REMEMBERED)(self._compare)

    def readable(self, hit: Hit) -> bool:
        """Return whether the file of a hit can be read."""
        return self._look(hit.id) is not None

    def equal(self, first: Hit, second: Hit) -> bool:
        """Return whether two images have the same pixels."""
        looks = self._look(first.id), self._look(second.id)
        return bool(looks[0] and looks[1] and looks[0].digest == looks[1].digest)

    def near_copies(self, first: Hit, second: Hit) -> bool:
        """Return whether two images are the same, or rescaled, recompressed or cropped."""
        return self._near(first.id, second.id)

    def _compare(self, first: str, second: str) -> bool:
        looks = self._look(first), self._look(second)
        return bool(looks[0] and looks[1] and is_near_copy(looks[0].thumbnail, looks[1].thumbnail))


@dataclass(frozen=True, slots=True)
class _Look:
    digest: str
    thumbnail: Thumbnail


def _look(open: Callable[[str], Image], id: str) -> _Look | None:
    try:
        image = open(id)
        digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
    except (BadPicture, OSError):
        return None
    return _Look(digest, thumbnail(image))


def readable(images: Images) -> Keep:
    """Build a filter that removes unreadable files."""
    return _only(images.readable)
