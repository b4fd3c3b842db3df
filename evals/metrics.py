"""Metrics as pure functions of numbers; SciPy is imported where it is needed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import isfinite, sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Interval = tuple[float, float]
FEW_GROUPS = 30  # under which a bootstrap over groups gives too narrow intervals
RESAMPLES = 9_999
_NUMBERS = 10_000_000  # of the resamples that are in memory at a time
_EQUAL = 1e-12  # difference of means that rounding makes


def mean(values: Sequence[float]) -> float | None:
    """Return the mean of the values; None for none."""
    return sum(values) / len(values) if len(values) else None


def ratio(part: int, total: int) -> float | None:
    """Return part / total; None if `total` is 0."""
    return part / total if total else None


def estimate(
    values: Sequence[float],
    low: float,
    high: float,
    *,
    seed: int = 0,
    name: str = "mean",
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """Return the mean under `name`, its 95 % interval (`ci`) and the number of values (`n`).

    With `groups`, the number of different ones is added (`groups`): see `interval`.
    """
    ci = interval(values, low, high, seed, groups)
    clusters = {} if groups is None else {"groups": len(set(groups))}
    return {name: mean(values), "ci": ci and list(ci), "n": len(values), **clusters}


def interval(
    values: Sequence[float],
    low: float,
    high: float,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
) -> Interval | None:
    """Return a 95 % interval of the mean of values that lie in [low, high]; None for no values.

    Bias-corrected and accelerated bootstrap (Efron, 1987) over the values, resampled with `seed`. With
    `groups`, one for each value, whole groups are resampled (cluster bootstrap; Davison and Hinkley, 1997,
    section 3.8), so that values of one group may depend on each other. Groups whose means are all equal
    have no bootstrap: see `_interval_of_equals`. Not covered: fewer than `FEW_GROUPS`, for which the
    interval is too narrow; state their number beside it.
    """
    import numpy as np
    from scipy.stats import bootstrap

    if not len(values):
        return None
    sums, sizes = _by_group(values, groups)
    center = float(sums.sum() / sizes.sum())
    ends = _interval_of_equals(center, len(sums), low, high)
    if np.ptp(sums / sizes) > _EQUAL:
        result = bootstrap(
            (sums, sizes),
            lambda sums, sizes, axis: sums.sum(axis) / sizes.sum(axis),
            n_resamples=RESAMPLES,
            batch=max(_NUMBERS // len(sums), 1),
            method="BCa",
            paired=True,
            rng=seed,
            vectorized=True,
        )
        bounds = float(result.confidence_interval.low), float(result.confidence_interval.high)
        ends = bounds if all(map(isfinite, bounds)) else ends
    return max(low, ends[0]), min(high, ends[1])


def _by_group(values: Sequence[float], groups: Sequence[Hashable] | None) -> tuple[Array, Array]:
    """Return the sum and the number of the values of each group; without groups every value is one."""
    import numpy as np

    places: dict[Hashable, int] = {}
    names = range(len(values)) if groups is None else groups
    rows = [places.setdefault(name, len(places)) for name, _ in zip(names, values, strict=True)]
    sums: Array = np.bincount(rows, np.asarray(values, dtype=np.float64)).astype(np.float64)
    return sums, np.bincount(rows).astype(np.float64)


def _interval_of_equals(value: float, n: int, low: float, high: float) -> Interval:
    """Bound the mean if n samples, or the means of n groups, all equal `value`.

    By Clopper and Pearson (1934), other values have probability at most u = 1 - 0.025 ** (1 / n), so the
    mean lies in [value - u (value - low), value + u (high - value)]. For shares this is the exact interval;
    for groups it is that of values which are the same within a group, the widest.
    """
    other = 1 - 0.025 ** (1 / n)
    return value - other * (value - low), value + other * (high - value)


def interval_of_share(hits: int, n: int) -> Interval | None:
    """Return the exact 95 % interval of a share hits / n (Clopper and Pearson, 1934); None for n = 0."""
    from scipy.stats import binomtest

    if not n:
        return None
    ends = binomtest(hits, n).proportion_ci(0.95, method="exact")
    return float(ends.low), float(ends.high)


def wilson_interval(hits: int, n: int) -> Interval:
    """Return the 95 % score interval of a share hits / n (Wilson, 1927); 0 to 1 for n = 0."""
    if not n:
        return 0.0, 1.0
    z = 1.959964
    share, spread = hits / n, z * z / n
    center = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return center - half, center + half


def calibration(
    beliefs: Sequence[float], true: Sequence[bool], bins: int = 10
) -> list[tuple[float, float, int]]:
    """Return (mean belief, share true, n) for each non-empty bin of equal width over 0..1."""
    parts: dict[int, list[tuple[float, bool]]] = {}
    for belief, is_true in zip(beliefs, true, strict=True):
        parts.setdefault(min(int(belief * bins), bins - 1), []).append((belief, is_true))
    columns = [tuple(zip(*parts[number], strict=True)) for number in sorted(parts)]
    return [
        (sum(belief) / len(belief), sum(is_true) / len(belief), len(belief)) for belief, is_true in columns
    ]


def calibration_error(beliefs: Sequence[float], true: Sequence[bool], bins: int = 10) -> float | None:
    """Return the expected calibration error (Guo et al., 2017): sum of n_b / n · |belief_b - true_b|.

    `beliefs` are probabilities, 0..1, that a concept is present; None for none.
    """
    gaps = [n * abs(belief - share) for belief, share, n in calibration(beliefs, true, bins)]
    return sum(gaps) / len(beliefs) if beliefs else None
