"""Exact products of queries with chosen rows of an index, and the best of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.types import Vectors

    Rows = NDArray[np.int64]


_SORTED = 4096  # products of a query; of more the best are selected before they are sorted


@dataclass(frozen=True)
class Selection:
    """Rows of an index to which a search is limited."""

    rows: Rows  # in ascending order, each once
    count: int  # of all rows
    mask: NDArray[np.bool_] = field(init=False)  # [count]

    def __post_init__(self) -> None:
        mask = np.zeros(self.count, np.bool_)
        mask[self.rows] = True
        object.__setattr__(self, "mask", mask)

    @property
    def share(self) -> float:
        """Return the share of all rows, 0 to 1."""
        return len(self.rows) / max(1, self.count)


def exact_of(index: Any) -> Any:
    """Return the exact index inside one with codes, else the index itself; the latter must be kept."""
    import faiss

    inner = getattr(index, "refine_index", None)
    return index if inner is None else faiss.downcast_index(inner)


def search_rows(exact: Any, queries: Vectors, k: int, rows: Rows) -> tuple[Vectors, Rows]:
    """Return products and rows, each [n, k], of the best of `rows` for queries [n, dim]; -1 after the last.

    `exact` is an `IndexFlatIP`.
    """
    best = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
    if size := min(k, len(rows)):
        for n in range(len(queries)):  # one at a time: the products of all may not fit into memory
            found = best_of(products_of(exact, queries[n : n + 1], rows[None]), rows[None], size)
            best[0][n, :size], best[1][n, :size] = found[0][0], found[1][0]
    return best


def products_of(exact: Any, queries: Vectors, candidates: Rows) -> Vectors:
    """Return the products [n, m] of queries [n, dim] with candidates [n, m], rows of an `IndexFlatIP`."""
    import faiss

    queries, candidates = np.ascontiguousarray(queries), np.ascontiguousarray(candidates)
    products = np.empty(candidates.shape, np.float32)
    pointers = (faiss.swig_ptr(array) for array in (queries, products, candidates))
    query_pointer, product_pointer, candidate_pointer = pointers
    exact.compute_distance_subset(
        len(queries), query_pointer, candidates.shape[1], product_pointer, candidate_pointer
    )
    return products


def best_of(products: Vectors, candidates: Rows, k: int) -> tuple[Vectors, Rows]:
    """Return the `k` greatest products of each query [n, m] and their candidates, best first; `k` <= m."""
    queries = np.arange(len(products))[:, None]
    if products.shape[1] > _SORTED:
        part = np.argpartition(products, -k, axis=1)[:, -k:]
        products, candidates = products[queries, part], candidates[queries, part]
    places = (-products).argsort(axis=1)[:, :k]
    return products[queries, places], candidates[queries, places]
