"""Search by product codes of 4 bits, refined by exact products until hardly anything can be missing.

A code stands for 5 numbers of a vector that is rotated at random, so that each code has an equal part of it.
FAISS compares codes some fifty times as fast as vectors; what they choose is compared exactly.

How many candidates are needed depends on the query: 120 suffice for the ten best where these stand out, and
in a dense cluster 10,000 may not. So of each query it is estimated, from its candidates alone, how many of
the ten best are not among them. While that is more than 3 in 1,000, first the other half of the candidates is
compared, then five times as many are searched for, twice at most, and at last all vectors are compared. Hits
after the ten best, which fusion by ranks asks for, are the best of the same candidates.

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

FACTORS = (24, 120, 600)
MOST_MISSING = 0.003  # estimated share of the hits that may be missing
_CODED = 5  # numbers that a code represents
_CERTAIN = 10  # hits of which hardly any may be missing
_LEAST_RATIO = 4  # candidates a hit, of those after them too
_LEAST_CANDIDATES = 240  # from half as many on the estimate is reliable
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
    """Search for several queries, with the best hits that they have so far.

    Comparing codes leaves little else in the processor's cache, so that each call of numpy after it takes
    several times as long as alone; hence as few of them as possible.
    """

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
        queries = self._queries[places]
        scores, candidates = self._codes.search(queries, fetched)
        postponed = places[:0]
        if self._selection:
            enough, scores, candidates = _selected(scores, candidates, size, self._selection)
            places, postponed, queries = places[enough], places[~enough], queries[enough]
        products = products_of(self._exact, queries, candidates[:, : size // 2])
        waits = self._keep(places, scores, candidates, products)
        if waits:
            places, scores, candidates = places[waits], scores[waits], candidates[waits]
            others = products_of(self._exact, queries[waits], candidates[:, size // 2 : size])
            products = np.concatenate([products[waits], others], axis=1)
            waits = self._keep(places, scores, candidates, products)
        return np.concatenate([places[waits], postponed]) if waits else postponed

    def _keep(self, places: Rows, scores: Vectors, candidates: Rows, products: Vectors) -> list[int]:
        """Set the best of the candidates that were compared; return which of the queries may miss hits."""
        best = best_of(products, candidates, self._k)
        self._set(places, *best)
        missing = _missing(scores[:, : products.shape[1]], products, best[0][:, self._certain - 1])
        return [n for n, number in enumerate(missing) if number > MOST_MISSING * self._certain]

    def exactly(self, places: Rows) -> None:
        """Search exactly for the queries at some places."""
        if self._selection:
            found = search_rows(self._exact, self._queries[places], self._k, self._selection.rows)
        else:
            found = self._exact.search(self._queries[places], self._k)
        self._set(places, *found)

    def _set(self, places: Rows, scores: Vectors, rows: Rows) -> None:
        if len(places) == len(self._queries):
            self.scores, self.rows = scores, rows
        else:
            self.scores[places], self.rows[places] = scores, rows


def _selected(
    scores: Vectors, candidates: Rows, size: int, selection: Selection
) -> tuple[NDArray[np.bool_], Vectors, Rows]:
    """Return which queries have `size` selected candidates, and their first ones, [m, size]."""
    outside = ~selection.mask[candidates]
    enough = candidates.shape[1] - outside.sum(1) >= size
    places = np.argsort(outside[enough], axis=1, kind="stable")[:, :size]
    chosen = np.arange(len(places))[:, None], places
    return enough, scores[enough][chosen], candidates[enough][chosen]


def _missing(scores: Vectors, products: Vectors, last: Vectors) -> list[float]:
    """Estimate for each query how many vectors that are no candidates have a product over `last` [n].

    Args:
        scores: of the candidates by their codes, [n, m], best first.
        products: of the candidates, [n, m].
        last: product of the last hit.
    """
    count = scores.shape[1]
    half = count // 2
    table = np.ones((len(scores), 3, count))
    table[:, 0], table[:, 1] = scores, products
    lower = _sums(table[:, :, half:])
    sums = _sums(table[:, :, :half]) + lower
    edges = scores[:, [half, -1]].tolist()
    queries = zip(sums.tolist(), lower.tolist(), edges, last.tolist(), strict=True)
    return [_missing_of(*query) for query in queries]


def _missing_of(sums: list[Any], lower: list[Any], edges: list[float], last: float) -> float:
    """Estimate how many hits of a query are no candidates, from sums over all and over the lower half."""
    variance, covariance, _ = _moments(sums)
    slope = max(covariance / max(variance, 1e-12), _LEAST_SLOPE)
    variance, covariance, others = _moments(lower)
    noise = max(_NOISE * math.sqrt(max(others - 2 * slope * covariance + slope**2 * variance, 0)), 1e-6)
    (_, _, score), (_, _, product), (_, _, count) = lower
    middle, cut = edges
    at_cut = product / count + slope * (cut - score / count)
    growth = math.log(2) * noise / (slope * max(middle - cut, 1e-6))  # candidates double within the half
    return float(sums[2][2]) * _tail((last - at_cut) / noise, growth)


def _sums(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums [n, 3, 3] of the products of scores, products and ones [n, 3, m] with each other."""
    sums: NDArray[np.float64] = table @ table.transpose(0, 2, 1)
    return sums


def _moments(sums: list[Any]) -> tuple[float, float, float]:
    """Return the variance of the scores, their covariance with the products, and the products' variance."""
    (aa, ab, a), (_, bb, b), (_, _, n) = sums
    return (aa - a * a / n) / n, (ab - a * b / n) / n, (bb - b * b / n) / n


def _tail(distance: float, growth: float) -> float:
    """Return the integral over t > 0 of growth * exp(growth * t) * P(normal > distance + t)."""
    power = math.exp(min(growth**2 / 2 - growth * distance, 50.0))
    return max(power * _above(distance - growth) - _above(distance), 0.0)


def _above(value: float) -> float:
    return math.erfc(value / math.sqrt(2)) / 2
