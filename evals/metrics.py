"""Metrics as pure functions of numbers; SciPy is imported where it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

Interval = tuple[float, float]
RESAMPLES = 9_999


def mean(values: Sequence[float]) -> float | None:
    """Return the mean of the values; None for none."""
    return sum(values) / len(values) if len(values) else None


def ratio(part: int, total: int) -> float | None:
    """Return part / total; None if `total` is 0."""
    return part / total if total else None


def estimate(
    values: Sequence[float], low: float, high: float, *, seed: int = 0, name: str = "mean"
) -> dict[str, Any]:
    """Return the mean under `name`, its 95 % interval (`ci`) and the number of values (`n`)."""
    ci = interval(values, low, high, seed)
    return {name: mean(values), "ci": ci and list(ci), "n": len(values)}


def interval(values: Sequence[float], low: float, high: float, seed: int = 0) -> Interval | None:
    """Return a 95 % interval of the mean of values that lie in [low, high]; None for no values.

    Bias-corrected and accelerated bootstrap (Efron, 1987) over the values, resampled with `seed`. Values that
    are all equal have no bootstrap: see `_interval_of_equals`. Not covered: values that depend on each other,
    such as cases about one species, for which the true interval is wider.
    """
    from scipy.stats import bootstrap

    sample = [float(value) for value in values]
    if not sample:
        return None
    if len(set(sample)) > 1:
        result = bootstrap((sample,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=seed, vectorized=True)
        ends = result.confidence_interval
        if isfinite(ends.low) and isfinite(ends.high):
            return float(ends.low), float(ends.high)
    return _interval_of_equals(sample[0], len(sample), low, high)


def _interval_of_equals(value: float, n: int, low: float, high: float) -> Interval:
    """Bound the mean if n samples all equal `value`.

    By Clopper and Pearson (1934), other values have probability at most u = 1 - 0.025 ** (1 / n), so the
    mean lies in [value - u (value - low), value + u (high - value)]. For shares this is the exact interval.
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
