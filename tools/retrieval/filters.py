"""Leave hits out: by licence, by name, by score, and where a better hit looks the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from pleinair.tools.realrag import Training, search_away, training_of
from pleinair.tools.types import Hit, Retriever

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Vectors


class Filter(ABC):
    """Pass on a part of another retriever's hits, and ask it for more until there are `k`."""

    def __init__(self, found: Retriever) -> None:
        self._found = found

    @property
    def training(self) -> Training | None:
        """Give the training of the retriever behind, None where it has none."""
        return training_of(self._found)

    @abstractmethod
    def keep(self, hits: Sequence[Hit]) -> list[Hit]:
        """Choose among all hits so far, which come best first."""

    def search(self, query: str, k: int) -> list[Hit]:
        """Find up to `k` pictures, best first."""
        return self._fill(lambda asked: self._found.search(query, asked), k)

    def search_away(self, query: str, away: Image, weight: float, k: int) -> list[Hit]:
        """Find what is near a text and far from a picture, where the retriever behind can."""
        return self._fill(lambda asked: search_away(self._found, query, away, weight=weight, k=asked), k)

    def _fill(self, search: Callable[[int], list[Hit]], k: int) -> list[Hit]:
        asked = 2 * k
        while True:
            hits = search(asked)
            kept = self.keep(hits)
            if len(kept) >= k or len(hits) < asked:
                return kept[:k]
            asked *= 4

    def open(self, id: str) -> Image:
        """Open a picture of the library."""
        return self._found.open(id)

    def entries(self) -> Sequence[Hit]:
        """List the pictures of the library."""
        return self._found.entries()


class Licensed(Filter):
    """Keep the pictures whose licence is on a list; the case of letters makes no difference.

    A picture without a stated licence has the licence "unknown".
    """

    def __init__(self, found: Retriever, licenses: Collection[str]) -> None:
        super().__init__(found)
        self._licenses = {license.strip().casefold() for license in licenses}

    def keep(self, hits: Sequence[Hit]) -> list[Hit]:
        """Keep the hits with a licence of the list."""
        return [hit for hit in hits if hit.license.casefold() in self._licenses]

    def entries(self) -> list[Hit]:
        """List the pictures with a licence of the list."""
        return self.keep(self._found.entries())


class Without(Filter):
    """Search a library as if some of its pictures were not in it; they may still be opened."""

    def __init__(self, found: Retriever, ids: Collection[str]) -> None:
        super().__init__(found)
        self._ids = frozenset(ids)

    def keep(self, hits: Sequence[Hit]) -> list[Hit]:
        """Keep the hits that are of other pictures."""
        return [hit for hit in hits if hit.id not in self._ids]

    def entries(self) -> list[Hit]:
        """List the other pictures."""
        return self.keep(self._found.entries())


class AtLeast(Filter):
    """Keep the hits that score at least so much, in the retriever's own scores."""

    def __init__(self, found: Retriever, threshold: float) -> None:
        super().__init__(found)
        self._floor = threshold

    def keep(self, hits: Sequence[Hit]) -> list[Hit]:
        """Keep the hits on or over the threshold."""
        return [hit for hit in hits if hit.score >= self._floor]

    def search(self, query: str, k: int) -> list[Hit]:
        """Find up to `k` pictures, best first; what comes after is weaker still, so no more are asked for."""
        return self.keep(self._found.search(query, k))


class Distinct(Filter):
    """Leave a picture out that looks like a better hit: the cosine of their embeddings is over `most`."""

    def __init__(self, found: Retriever, vector: Callable[[str], Vectors], most: float) -> None:
        super().__init__(found)
        self._vector, self._most = vector, most

    def keep(self, hits: Sequence[Hit]) -> list[Hit]:
        """Keep the hits that look like no hit before them."""
        kept: list[Hit] = []
        vectors: list[Vectors] = []
        for hit in hits:
            vector = self._vector(hit.id)
            if not any(float(vector @ better) > self._most for better in vectors):
                kept.append(hit)
                vectors.append(vector)
        return kept
