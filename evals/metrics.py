"""Measure outcomes: pure functions of plain numbers. SciPy is imported where it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

Interval = tuple[float, float]
RESAMPLES = 9_999


def mean(values: Sequence[float]) -> float | None:
    """Average the values; None for none."""
    return sum(values) / len(values) if values else None


def accuracy(hits: Sequence[bool]) -> float | None:
    """Give the share of hits: hits / n."""
    return mean([float(hit) for hit in hits])


def interval(values: Sequence[float], low: float, high: float, seed: int = 0) -> Interval | None:
    """Give a 95 % interval of the mean of values that lie in [low, high]; None for no values.

    Bias-corrected and accelerated bootstrap (Efron, 1987) over the values, `seed` for the resampling. Values
    that are all equal have no bootstrap: see `_interval_of_equals`. Not covered: values that depend on each
    other, such as cases about one species, for which the true interval is wider.
    """
    from scipy.stats import bootstrap

    if not values:
        return None
    if len(set(values)) == 1:
        return _interval_of_equals(values[0], len(values), low, high)
    sample = [float(value) for value in values]
    found = bootstrap(
        (sample,), _mean_of_rows, n_resamples=RESAMPLES, method="BCa", rng=seed, vectorized=True
    ).confidence_interval
    if not (isfinite(found.low) and isfinite(found.high)):
        return _interval_of_equals(sample[0], len(sample), low, high)
    return float(found.low), float(found.high)


def _mean_of_rows(sample: Sequence[float], axis: int) -> object:
    import numpy as np

    return np.mean(sample, axis=axis)


def _interval_of_equals(value: float, n: int, low: float, high: float) -> Interval:
    """Bound the mean where n draws all gave `value`.

    By Clopper and Pearson (1934), other values have probability at most u = 1 - 0.025 ** (1 / n), so the
    mean lies in [value - u (value - low), value + u (high - value)]. For hits it is their exact interval.
    """
    other = 1 - 0.025 ** (1 / n)
    return value - other * (value - low), value + other * (high - value)


def interval_of_share(hits: int, n: int) -> Interval | None:
    """Give the exact 95 % interval of a share hits / n (Clopper and Pearson, 1934); None for n = 0."""
    from scipy.stats import binomtest

    if not n:
        return None
    found = binomtest(hits, n).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def precision(said: Sequence[bool], true: Sequence[bool]) -> tuple[int, int]:
    """Count (right, said) among what was said to be there; precision is their ratio."""
    return sum(s and t for s, t in zip(said, true, strict=True)), sum(said)


def recall(said: Sequence[bool], true: Sequence[bool]) -> tuple[int, int]:
    """Count (found, true) among what is there; recall is their ratio."""
    return precision(true, said)


def calibration(
    beliefs: Sequence[float], true: Sequence[bool], bins: int = 10
) -> list[tuple[float, float, int]]:
    """Give (mean belief, share true, n) of each filled bin of equal width over 0..1."""
    filled: dict[int, list[tuple[float, bool]]] = {}
    for belief, is_true in zip(beliefs, true, strict=True):
        filled.setdefault(min(int(belief * bins), bins - 1), []).append((belief, is_true))
    return [_bin(filled[number]) for number in sorted(filled)]


def _bin(pairs: Sequence[tuple[float, bool]]) -> tuple[float, float, int]:
    n = len(pairs)
    return sum(belief for belief, _ in pairs) / n, sum(is_true for _, is_true in pairs) / n, n


def calibration_error(beliefs: Sequence[float], true: Sequence[bool], bins: int = 10) -> float | None:
    """Give the expected calibration error (Guo et al., 2017): sum of n_b / n · |belief_b - true_b| over bins.

    `beliefs` are probabilities that a concept is present, 0 to 1; None for none.
    """
    if not beliefs:
        return None
    return sum(n * abs(belief - share) for belief, share, n in calibration(beliefs, true, bins)) / len(
        beliefs
    )


def per_accepted(images: int, accepted: int) -> float | None:
    """Give the pictures drawn for each one accepted, those of rejected runs included; None for none."""
    return images / accepted if accepted else None
