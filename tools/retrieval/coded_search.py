"""Search by product codes of 4 bits, refined by exact products until hardly anything can be missing.

Codes of 64 bytes stand for vectors of 512 numbers, and FAISS compares them some fifty times as fast; what
they choose is compared exactly. How many candidates are needed depends on the query: 200 suffice for the ten
best where these stand out, and in a dense cluster 10,000 may not. So of each query it is estimated, from its
candidates alone, how many of the best are not among them. While that is more than 3 in 1,000 it is searched
again with eight times as many, and at last exactly.

The estimate: products are a line of the codes' scores plus normal noise, and below the last candidate the
scores go on as many times denser as they became within the second half of the candidates (exponentially; in
truth the growth slows down, so that it is an overestimate far below).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.types import Vectors

    Rows = NDArray[np.int64]

FACTORS = (20, 160, 1280)  # candidates a hit, in turn
MOST_MISSING = 0.003  # estimated share of the hits that may be missing
_LEAST_CANDIDATES = 200  # with fewer the estimate is unreliable
_MOST_CANDIDATES = 0.05  # of all vectors; with more exact search is about as fast
_LEAST_SLOPE = 0.1


def search_codes(index: Any, queries: Vectors, k: int, *, complete: bool = True) -> tuple[Vectors, Rows]:
    """Return products and rows, each [n, k], of the `k` best for queries [n, dim], best first.

    Args:
        index: FAISS's codes with the exact vectors behind them (`IndexRefineFlat`).
        queries: float32, contiguous.
        k: hits.
        complete: whether a query that codes cannot answer is searched exactly; without it such a query gets
            the best of its last candidates.
    """
    import faiss

    codes, exact = faiss.downcast_index(index.base_index), faiss.downcast_index(index.refine_index)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    waiting = np.arange(len(queries))
    for factor in FACTORS:
        size = max(k * factor, _LEAST_CANDIDATES)
        if not len(waiting) or size > _MOST_CANDIDATES * index.ntotal:
            break
        approximate, candidates = codes.search(queries[waiting], size)
        products = _products(exact, queries[waiting], candidates)
        best = np.argpartition(products, -k, axis=1)[:, -k:]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(products, best, 1), axis=1), 1)
        scores[waiting] = np.take_along_axis(products, best, 1)
        rows[waiting] = np.take_along_axis(candidates, best, 1)
        waiting = waiting[_missing(approximate, products, scores[waiting, -1]) > MOST_MISSING * k]
    if len(waiting) and (complete or rows[waiting[0], 0] < 0):
        scores[waiting], rows[waiting] = exact.search(queries[waiting], k)
    return scores, rows


def _products(exact: Any, queries: Vectors, candidates: Rows) -> Vectors:
    """Return the products of each query [n, dim] with its candidates [n, m]."""
    import faiss

    products = np.empty(candidates.shape, np.float32)
    pointers = (faiss.swig_ptr(array) for array in (queries, products, candidates))
    query_pointer, product_pointer, candidate_pointer = pointers
    exact.compute_distance_subset(
        len(queries), query_pointer, candidates.shape[1], product_pointer, candidate_pointer
    )
    return products


def _missing(scores: Vectors, products: Vectors, last: Vectors) -> NDArray[np.float64]:
    """Estimate for each query how many vectors that are no candidates have a product over `last` [n].

    Args:
        scores: of the candidates by their codes, [n, m], best first.
        products: of the candidates, [n, m].
        last: product of the last hit.
    """
    count = scores.shape[1]
    half, cut = count // 2, scores[:, -1]
    centred = scores - scores.mean(1, keepdims=True)
    covariance = (centred * (products - products.mean(1, keepdims=True))).sum(1)
    slope = np.clip(covariance / np.maximum((centred**2).sum(1), 1e-12), _LEAST_SLOPE, None)
    residuals = products[:, half:] - slope[:, None] * scores[:, half:]
    noise = np.maximum(residuals.std(1), 1e-6)
    distance = (last - residuals.mean(1) - slope * cut) / noise  # of the last hit from what is at the cut
    width = np.maximum(scores[:, half] - cut, 1e-6)  # in which the number of candidates doubles
    growth = math.log(2) * noise / (slope * width)
    return np.array([count * _tail(*pair) for pair in zip(distance.tolist(), growth.tolist(), strict=True)])


def _tail(distance: float, growth: float) -> float:
    """Return the integral over t > 0 of growth * exp(growth * t) * P(normal > distance + t)."""
    power = math.exp(min(growth**2 / 2 - growth * distance, 50.0))
    return max(power * _above(distance - growth) - _above(distance), 0.0)


def _above(value: float) -> float:
    return math.erfc(value / math.sqrt(2)) / 2
