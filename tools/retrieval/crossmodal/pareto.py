"""Choose the pictures that no other one dominates: Cross-modal RAG's joint retrieval (Zhu et al. 2025).

`exact` groups the pictures by satisfaction vector, keeps the groups whose vector no other one dominates
(definition 3.2; the scalar form of definition 3.3 is not used), and takes the best dense score of each.
`scalarised` is the paper's algorithm 1: the arg max of equation 6 for every α of a grid. They agree where the
grid is as fine as `grid_needed` says and β is under `beta_limit`. The paper's β of 0.015 is, for up to five
sub-queries, whatever the cosines are. No vector given here may be all zero; ties go to the earlier picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import comb

from pleinair.tools.retrieval.crossmodal.sparse import Vector
from pleinair.tools.types import BadInput

MOST_POINTS = 200_000  # of a grid; seven sub-queries need 18,564 and eight 245,157
BLOCK = 4096  # grid points compared at a time


def dominates(a: Vector, b: Vector) -> bool:
    """Tell whether `a` has every sub-query that `b` has, and one more (definition 3.2)."""
    return a != b and all(one >= other for one, other in zip(a, b, strict=True))


def exact(vectors: Sequence[Vector], scores: Sequence[float]) -> list[int]:
    """Give the places of the Pareto set in their order: the best score of each non-dominated vector.

    There are at most C(n, n/2) of them for n sub-queries, whatever the number of pictures.
    """
    best: dict[Vector, int] = {}
    for row, (flags, score) in enumerate(zip(vectors, scores, strict=True)):
        if flags not in best or score > scores[best[flags]]:
            best[flags] = row
    return sorted(row for flags, row in best.items() if not any(dominates(other, flags) for other in best))


def scalarised(vectors: Sequence[Vector], scores: Sequence[float], beta: float, steps: int = 0) -> list[int]:
    """Give what algorithm 1 finds, in order: the arg max of Σ α s + β n S for every α of the grid.

    Args:
        vectors: the satisfaction vectors of D̃, n flags each.
        scores: S of each, the mean of its n cosines.
        beta: the weight of the dense part.
        steps: the grid's α are multiples of 1 / `steps`, all above 0; 0 takes `grid_needed`.

    Raises:
        BadInput: fewer steps than sub-queries, or a grid of more than `MOST_POINTS` points.
    """
    import numpy as np

    if not vectors:
        return []
    flags = np.array(vectors, dtype=np.float64)
    dense = beta * flags.shape[1] * np.asarray(scores, dtype=np.float64)
    steps = _checked_steps(flags.shape[1], steps)
    found: set[int] = set()
    for block in _blocks(grid(flags.shape[1], steps)):
        values = np.array(block) @ flags.T / steps + dense
        found.update(values.argmax(axis=1).tolist())
    return sorted(found)


def _checked_steps(n: int, steps: int) -> int:
    """Give the grid's steps for `n` sub-queries, `grid_needed` where 0 was asked for."""
    steps = steps or grid_needed(n)
    if steps < n:
        raise BadInput(f"A grid of {steps} steps has no point for {n} sub-queries: wanted {n} or more.")
    if (points := comb(steps - 1, n - 1)) > MOST_POINTS:
        raise BadInput(
            f"A grid of {steps} steps for {n} sub-queries has {points:,} points, over {MOST_POINTS:,}: "
            "take the exact method, which needs none."
        )
    return steps


def grid_needed(n: int) -> int:
    """Give the fewest steps with which no vector of `n` flags can be missed.

    A vector with k of n flags wins for sure at α of n − k + 1 parts on each flag it has and 1 on the others.
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


def _blocks(points: Iterator[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Collect grid points into lists of at most `BLOCK`."""
    block: list[tuple[int, ...]] = []
    for point in points:
        block.append(point)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


def beta_limit(n: int, scores: Sequence[float], steps: int = 0) -> float:
    """Give the β under which theorem 3.2 holds: δ_min / C_max, the smallest α over the largest Σ cos.

    The paper takes cosines as 0 to 1; where one is negative the whole range of Σ cos counts. Infinite where
    every sum is 0.
    """
    sums = [n * score for score in scores]
    widest = max(sums, default=0.0) - min(0.0, *sums, 0.0)
    return 1 / (_checked_steps(n, steps) * widest) if widest > 0 else float("inf")


def warning(n: int, scores: Sequence[float], beta: float, steps: int = 0) -> str:
    """Say where β or the grid is outside theorem 3.2, so that algorithm 1 may miss or add pictures."""
    steps, said = _checked_steps(n, steps), []
    if beta >= (limit := beta_limit(n, scores, steps)):
        said.append(f"beta {beta:g} is not under {limit:.3g}, the smallest α over the largest Σ cos")
    if steps < (needed := grid_needed(n)):
        said.append(f"a grid of {steps} steps is coarser than the {needed} that {n} sub-queries can need")
    return f"algorithm 1 may miss the Pareto set: {'; '.join(said)}" if said else ""
