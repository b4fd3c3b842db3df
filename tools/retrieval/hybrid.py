"""Fuse two retrievers by rank: neither's scores have to mean the same (Cormack et al., SIGIR 2009)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pleinair.tools.types import Hit, Retriever

if TYPE_CHECKING:
    from PIL.Image import Image

K = 60  # the paper's constant
DEPTH = 100  # ranks of either list that count


class Hybrid:
    """Answer with the pictures that two retrievers of one library rank high; implements `Retriever`.

    A hit's score is the sum of 1 / (60 + rank) over the lists it is in, ranks from 1: 2/61 where both put it
    first, 1/61 where one does and the other has not found it.
    """

    def __init__(self, first: Retriever, second: Retriever) -> None:
        self._first, self._second = first, second

    def search(self, query: str, k: int) -> list[Hit]:
        """Find up to `k` pictures, best first; of equals the first retriever's come first."""
        deep = max(k, DEPTH)
        return fuse([one.search(query, deep) for one in (self._first, self._second)])[:k]

    def open(self, id: str) -> Image:
        """Open a picture; the library is the same for both."""
        return self._first.open(id)

    def entries(self) -> Sequence[Hit]:
        """List the pictures of the library."""
        return self._first.entries()


def fuse(found: Sequence[Sequence[Hit]]) -> list[Hit]:
    """Add up 1 / (60 + rank) over the lists for each picture, and order by the sums."""
    hits: dict[str, Hit] = {}
    sums: dict[str, float] = defaultdict(float)
    for ranked in found:
        for rank, hit in enumerate(ranked, start=1):
            hits.setdefault(hit.id, hit)
            sums[hit.id] += 1 / (K + rank)
    fused = [hit.model_copy(update={"score": sums[id]}) for id, hit in hits.items()]
    return sorted(fused, key=lambda hit: -hit.score)
