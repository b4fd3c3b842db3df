"""Search by product codes of 4 bits, refined by exact products until hardly anything can be missing.

A code stands for 5 numbers of a vector that is rotated at random, so that each code has an equal part of it.
FAISS compares codes some fifty times as fast as vectors; what they choose is compared exactly.

How many candidates are needed depends on the query: 200 suffice for the ten best where these stand out, and
in a dense cluster 10,000 may not. So of each query it is estimated, from its candidates alone, how many of
the ten best are not among them. While that is more than 3 in 1,000, first the other half of the candidates is
compared, then eight times as many are searched for, and at last all vectors are compared. Hits after the ten
best, which fusion by ranks asks for, are the best of the same candidates.

The estimate: products are a line of the codes' scores plus normal noise, and below the last candidate the
scores go on as many times denser as they became within the second half of the candidates (exponentially; in
truth the growth slows down, so that it is an overestimate far below).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pleinair.tools.retrieval.exact_search import Selection, best_of, exact_of, products_of, search_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.types import Vectors

    Rows = NDArray[np.int64]

FACTORS = (40, 320, 1280)  # candidates a hit, in turn
MOST_MISSING = 0.003  # estimated share of the hits that may be missing
_CODED = 5  # numbers that a code represents
_CERTAIN = 10  # hits of which hardly any may be missing
_LEAST_RATIO = 4  # candidates a hit, of those after them too
_LEAST_CANDIDATES = 400  # from half as many on the estimate is reliable
_MOST_CANDIDATES = 0.05  # of all vectors; with more exact search is about as fast
_LEAST_SLOPE = 0.1
_NOISE = 1.2  # of the products, to that of the candidates: what the codes leave out differs among clusters
_MARGIN = 1.5  # candidates for each that a selection should have
_FEW = 35_000  # selected rows; so many are compared in about 5 ms


def empty_coded_index(sample: Vectors) -> Any:
    """Return an empty `IndexRefineFlat`: codes trained on vectors [n, dim], and the exact vectors."""
    import faiss

    dim = sample.shape[1]
    codes = 2 * code_bytes(dim)
    name = f"RR{codes * _CODED},PQ{codes}x4fs,RFlat"
    index = faiss.index_factory(dim, name, faiss.METRIC_INNER_PRODUCT)
    index.train(sample)
    return index


def code_bytes(dim: int) -> int:
    """Return the bytes of a vector's codes: two codes each, of which FAISS wants an even number."""
    return -(-dim // (2 * _CODED))


def search_codes(
    index: Any, queries: Vectors, k: int, *, complete: bool = True, selection: Selection | None = None
) -> tuple[Vectors, Rows]:
    """Return products and rows, each [n, k], of the `k` best for queries [n, dim], best first.

    Args:
        index: FAISS's codes with the exact vectors behind them (`IndexRefineFlat`).
        queries: float32, contiguous.
        k: hits, of which the first `_CERTAIN` are complete.
        complete: whether a query that codes cannot answer is searched exactly; without it such a query gets
            the best of its last candidates.
        selection: rows to which the search is limited; the last hits are rows -1 where it has fewer than `k`.
    """
    if selection and len(selection.rows) <= _FEW:
        return search_rows(exact_of(index), queries, k, selection.rows)
    search = _Search(index, queries, k, selection)
    waiting = np.arange(len(queries))
    for factor in FACTORS:
        size = max(min(k, _CERTAIN) * factor, k * _LEAST_RATIO, _LEAST_CANDIDATES)
        fetched = int(size * _MARGIN / selection.share) if selection else size
        if not len(waiting) or fetched > _MOST_CANDIDATES * index.ntotal:
            break
        waiting = search.by_codes(waiting, size, fetched)
    if len(waiting) and (complete or (search.rows[waiting, 0] < 0).any()):
        search.exactly(waiting)
    return search.scores, search.rows


class _Search:
    """Search for several queries, with the best hits that they have so far."""

    def __init__(self, index: Any, queries: Vectors, k: int, selection: Selection | None) -> None:
        import faiss

        self._codes, self._exact = faiss.downcast_index(index.base_index), exact_of(index)
        self._queries, self._k, self._selection = queries, k, selection
        self._certain = min(k, _CERTAIN)
        self.scores = np.full((len(queries), k), -np.inf, np.float32)
        self.rows = np.full((len(queries), k), -1, np.int64)

    def by_codes(self, places: Rows, size: int, fetched: int) -> Rows:
        """Compare `size` candidates, of `fetched`, of the queries at some places.

        Return the places of those that may miss hits.
        """
        scores, candidates = self._codes.search(self._queries[places], fetched)
        postponed = places[:0]
        if self._selection:
            enough, scores, candidates = _selected(scores, candidates, size, self._selection)
            places, postponed = places[enough], places[~enough]
        products = np.empty((len(places), 0), np.float32)
        for count in (size // 2, size):
            new = products_of(self._exact, self._queries[places], candidates[:, products.shape[1] : count])
            products = np.concatenate([products, new], axis=1)
            best, self.rows[places] = best_of(products, candidates, self._k)
            self.scores[places] = best
            missing = _missing(scores[:, :count], products, best[:, self._certain - 1])
            waits = missing > MOST_MISSING * self._certain
            if not waits.any():
                return postponed
            places, products = places[waits], products[waits]
            scores, candidates = scores[waits], candidates[waits]
        return np.concatenate([places, postponed])

    def exactly(self, places: Rows) -> None:
        """Search exactly for the queries at some places."""
        if self._selection:
            found = search_rows(self._exact, self._queries[places], self._k, self._selection.rows)
        else:
            found = self._exact.search(self._queries[places], self._k)
        self.scores[places], self.rows[places] = found


def _selected(
    scores: Vectors, candidates: Rows, size: int, selection: Selection
) -> tuple[NDArray[np.bool_], Vectors, Rows]:
    """Return which queries have `size` selected candidates, and their first ones, [m, size]."""
    outside = ~selection.mask[candidates]
    enough = candidates.shape[1] - outside.sum(1) >= size
    places = np.argsort(outside[enough], axis=1, kind="stable")[:, :size]
    chosen = np.arange(len(places))[:, None], places
    return enough, scores[enough][chosen], candidates[enough][chosen]


def _missing(scores: NDArray[Any], products: NDArray[Any], last: Vectors) -> NDArray[np.float64]:
    """Estimate for each query how many vectors that are no candidates have a product over `last` [n].

    Args:
        scores: of the candidates by their codes, [n, m], best first.
        products: of the candidates, [n, m].
        last: product of the last hit.
    """
    scores, products = scores.astype(np.float64), products.astype(np.float64)
    count = scores.shape[1]
    half, cut = count // 2, scores[:, -1]
    centred = scores - _means(scores)[:, None]
    variance = np.maximum(np.einsum("nm,nm->n", centred, centred), 1e-12)
    slope = np.maximum(np.einsum("nm,nm->n", centred, products) / variance, _LEAST_SLOPE)
    residuals = products[:, half:] - slope[:, None] * scores[:, half:]
    level = _means(residuals)
    noise = np.maximum(_NOISE * np.sqrt(_means((residuals - level[:, None]) ** 2)), 1e-6)
    distance = (last - level - slope * cut) / noise  # of the last hit from what is at the cut
    width = np.maximum(scores[:, half] - cut, 1e-6)  # in which the number of candidates doubles
    growth = math.log(2) * noise / (slope * width)
    return np.array([count * _tail(*pair) for pair in zip(distance.tolist(), growth.tolist(), strict=True)])


def _means(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each row, in a third of the time that numpy's own takes for short ones."""
    means: NDArray[np.float64] = np.add.reduce(rows, 1) / rows.shape[1]
    return means


def _tail(distance: float, growth: float) -> float:
    """Return the integral over t > 0 of growth * exp(growth * t) * P(normal > distance + t)."""
    power = math.exp(min(growth**2 / 2 - growth * distance, 50.0))
    return max(power * _above(distance - growth) - _above(distance), 0.0)


def _above(value: float) -> float:
    return math.erfc(value / math.sqrt(2)) / 2
