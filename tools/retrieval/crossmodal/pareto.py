"""Images that no other one dominates: the selection of Cross-modal RAG's joint retrieval (Zhu et al. 2025).

`exact` groups the images by satisfaction vector, drops the groups whose vector is dominated (definition 3.2;
the scalar form of definition 3.3 is not used), and returns the best dense score of each. `scalarised` is the
paper's algorithm 1: the arg max of equation 6 for every α of a grid. They agree if the grid is as fine as
`grid_needed` says and β is under `beta_limit`; the paper's β of 0.015 is, for up to five sub-queries,
whatever the cosines are. No satisfaction vector may be all zero; ties go to the earlier image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import comb

from pleinair.tools.retrieval.crossmodal.sparse import Vector

_MOST_POINTS = 200_000  # of a grid; seven sub-queries need 18,564 and eight 245,157
FINEST_GRID = 21  # steps with fewer points than that for any number of sub-queries
_CELLS = 2**22  # grid points × images compared at a time


def dominates(a: Vector, b: Vector) -> bool:
    """Return whether `a` has every sub-query that `b` has, and one more (definition 3.2)."""
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))


def exact(vectors: Sequence[Vector], scores: Sequence[float]) -> list[int]:
    """Return the rows of the Pareto set in order: the best score of each non-dominated vector.

    There are at most C(n, n/2) of them for n sub-queries, whatever the number of images.
    """
    best: dict[Vector, int] = {}
    for row, (flags, score) in enumerate(zip(vectors, scores, strict=True)):
        if flags not in best or score > scores[best[flags]]:
            best[flags] = row
    return sorted(row for flags, row in best.items() if not any(dominates(other, flags) for other in best))


def scalarised(vectors: Sequence[Vector], scores: Sequence[float], beta: float, steps: int = 0) -> list[int]:
    """Return the rows that algorithm 1 finds, in order: the arg max of Σ α s + β n S for every α of the grid.

    Args:
        vectors: the satisfaction vectors of D̃, n flags each.
        scores: S of each, the mean of its n cosines.
        beta: the weight of the dense part.
        steps: the grid's α are multiples of 1 / `grid_steps(n, steps)`, all above 0; `FINEST_GRID` at most.
    """
    import numpy as np

    if not vectors:
        return []
    flags = np.array(vectors, dtype=np.float64)
    dense = beta * flags.shape[1] * np.asarray(scores, dtype=np.float64)
    steps = grid_steps(flags.shape[1], steps)
    rows: set[int] = set()
    points, block = grid(flags.shape[1], steps), max(_CELLS // len(vectors), 1)
    while alphas := list(islice(points, block)):
        values = np.array(alphas) @ flags.T / steps + dense
        rows.update(values.argmax(axis=1).tolist())
    return sorted(rows)


def grid_steps(n: int, steps: int = 0) -> int:
    """Return the steps of the grid for `n` sub-queries, at least n: a coarser one has no point.

    0 means `grid_needed`, or `FINEST_GRID` where that has too many points.
    """
    if steps == 0:
        needed = grid_needed(n)
        steps = needed if comb(needed - 1, n - 1) <= _MOST_POINTS else FINEST_GRID
    return max(steps, n)


def grid_needed(n: int) -> int:
    """Return the fewest steps with which no vector of `n` flags can be missed.

    A vector with k of n flags is certain to win at α of n − k + 1 parts on each flag it has and 1 on the
    others.
    """
    return max(k * (n - k + 1) + (n - k) for k in range(1, n + 1))


def grid(n: int, steps: int) -> Iterator[tuple[int, ...]]:
    """Yield every way to write `steps` as `n` positive numbers in their order: α times `steps`."""
    if n == 1:
        yield (steps,)
        return
    for first in range(1, steps - n + 2):
        for rest in grid(n - 1, steps - first):
            yield (first, *rest)


def beta_limit(n: int, scores: Sequence[float], steps: int = 0) -> float:
    """Return the β under which theorem 3.2 holds: δ_min / C_max, the smallest α over the largest Σ cos.

    The paper assumes cosines of 0 to 1; if one is negative the whole range of Σ cos counts. Infinite if every
    sum is 0.
    """
    sums = [n * score for score in scores]
    widest = max(sums, default=0.0) - min(0.0, *sums, 0.0)
    return 1 / (grid_steps(n, steps) * widest) if widest > 0 else float("inf")


def warning(n: int, scores: Sequence[float], beta: float, steps: int = 0) -> str:
    """Return a warning if β or the grid is outside theorem 3.2: algorithm 1 may miss or add images.

    It also says if the grid has more steps than `steps`.
    """
    actual, reasons = grid_steps(n, steps), []
    if beta >= (limit := beta_limit(n, scores, steps)):
        reasons.append(f"beta {beta:g} is not under {limit:.3g}, the smallest α over the largest Σ cos")
    if actual < (needed := grid_needed(n)):
        reasons.append(f"a grid of {actual} steps is coarser than the {needed} that {n} sub-queries can need")
    missed = f"algorithm 1 may miss the Pareto set: {'; '.join(reasons)}" if reasons else ""
    raised = f"the grid has {actual} steps instead of {steps}, one for each sub-query"
    return "; ".join(filter(None, (raised if 0 < steps < actual else "", missed)))
