"""Fréchet and kernel distances of two sets of images: FID and KID by Inception, and the same by any encoder.

FID is by one network only, that of Heusel et al. (2017) in `inception`; the distance by another encoder's
vectors is called Fréchet distance, never FID. Not covered: FID by torchvision's or Keras' Inception, which
gives other figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pleinair.evals.metrics import Interval
from pleinair.evals.scores.features import Features
from pleinair.evals.scores.items import Generated, OnProgress
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    Rows = NDArray[np.floating[Any]]  # [n, dim]
    Matrix = NDArray[np.float64]

FEW = 10_000  # images of a set that the authors of FID recommend at least
_SUBSETS, _SUBSET_SIZE = 100, 1000  # of KID, as in torch-fidelity


@dataclass
class Statistics:
    """Mean and covariance of features that arrive in parts, in float64 (Chan, Golub and LeVeque, 1979)."""

    n: int = 0
    mean: Matrix = field(default_factory=lambda: np.zeros(0))  # [dim]
    _products: Matrix = field(default_factory=lambda: np.zeros((0, 0)))  # of deviations: [dim, dim]

    def add(self, rows: Rows) -> None:
        """Add features, [n, dim]."""
        part = np.asarray(rows, dtype=np.float64)
        if not len(part):
            return
        mean = part.mean(axis=0)
        deviations = part - mean
        if not self.n:
            self.n, self.mean, self._products = len(part), mean, deviations.T @ deviations
            return
        total, step = self.n + len(part), mean - self.mean
        self._products += deviations.T @ deviations
        self._products += np.outer(step, step) * (self.n * len(part) / total)
        self.mean = self.mean + step * (len(part) / total)
        self.n = total

    @property
    def covariance(self) -> Matrix:
        """Return the unbiased covariance, [dim, dim]; of at least two rows."""
        return self._products / (self.n - 1)


def statistics(parts: Iterable[Rows]) -> Statistics:
    """Return the statistics of features that are read in parts."""
    result = Statistics()
    for rows in parts:
        result.add(rows)
    return result


def _distance(first: Statistics, second: Statistics) -> float:
    """Return the Fréchet distance of two normal distributions (Heusel et al., 2017).

    |m - m'|² + tr(C + C' - 2 (C C')^½). The root's trace is that of C^½ C' C^½, which is symmetric, so that
    fewer images than dimensions need no correction; they make the distance larger all the same.

    Raises:
        BadInput: a set has fewer than two images.
    """
    _check(range(first.n), range(second.n))
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T  # negative values are rounding errors
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second.covariance @ root), 0, None)).sum()
    apart = ((first.mean - second.mean) ** 2).sum()
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    return max(float(apart + traces - 2 * shared), 0.0)


def frechet(generated: Rows, real: Rows) -> float:
    """Return the Fréchet distance of two sets of features [n, dim]; raise `BadInput` under two of either."""
    return _distance(statistics([generated]), statistics([real]))


def kernel_distance(generated: Rows, real: Rows, seed: int = 0) -> float:
    """Return KID (Bińkowski et al., 2018): the unbiased squared MMD by the kernel (x·y / dim + 1)³.

    The mean over 100 subsets of at most 1,000 images, drawn by `seed`; unlike FID its expectation does not
    depend on the number of images. Raise `BadInput` under two of either.
    """
    _check(generated, real)
    size = min(len(generated), len(real), _SUBSET_SIZE)
    rng = np.random.default_rng(seed)
    subsets = (
        [rows[rng.choice(len(rows), size, replace=False)].astype(np.float64) for rows in (generated, real)]
        for _ in range(_SUBSETS)
    )
    return float(np.mean([_squared_mmd(first, second) for first, second in subsets]))


def _check(generated: Sized, real: Sized) -> None:
    if min(len(generated), len(real)) < 2:
        raise BadInput(f"{len(generated)} and {len(real)} images: use at least 2 of each.")


def _squared_mmd(first: Matrix, second: Matrix) -> float:
    within = sum((_kernel(rows, rows).sum() - np.trace(_kernel(rows, rows))) for rows in (first, second))
    return float(within / (len(first) * (len(first) - 1)) - 2 * _kernel(first, second).mean())


def _kernel(first: Matrix, second: Matrix) -> Matrix:
    result: Matrix = (first @ second.T / first.shape[1] + 1) ** 3
    return result


class FrechetDistance:
    """Fréchet distance of the generated images and all their real ones: FID if the encoder is Inception."""

    needs_truth = True
    bounds: Interval = (0.0, inf)

    def __init__(self, title: str, features: Features) -> None:
        self.title = title
        self.name = f"{title}, {features.encoder.id}"
        self.note = ""
        self._features = features

    def check(self, items: Sequence[Generated]) -> None:
        """Raise `BadInput` under two images of either set."""
        _check(*_sets(items))

    def score(self, items: Sequence[Generated], on_progress: OnProgress) -> float:
        """Return the distance; the note states both numbers of images, on which it depends."""
        generated, real = _sets(items)
        self._features.add([*generated, *real], on_progress)
        value = _distance(*(statistics(self._features.stream(paths)) for paths in (generated, real)))
        self.note = _note(len(generated), len(real))
        return value


class KernelDistance:
    """KID of the generated images and all their real ones; vectors of both are in memory."""

    needs_truth = True
    bounds: Interval = (-inf, inf)

    def __init__(self, title: str, features: Features) -> None:
        self.title = title
        self.name = f"{title}, {features.encoder.id}"
        self.note = ""
        self._features = features

    def check(self, items: Sequence[Generated]) -> None:
        """Raise `BadInput` under two images of either set."""
        _check(*_sets(items))

    def score(self, items: Sequence[Generated], on_progress: OnProgress) -> float:
        """Return the distance, which may be under 0 as it is unbiased."""
        generated, real = _sets(items)
        self._features.add([*generated, *real], on_progress)
        self.note = f"{len(generated)} generated, {len(real)} real"
        return kernel_distance(self._features.rows(generated), self._features.rows(real))


def _sets(items: Sequence[Generated]) -> tuple[list[Path], list[Path]]:
    """Return the generated files and all different real ones."""
    real = dict.fromkeys(chain.from_iterable(item.truth for item in items))
    return [item.image for item in items], list(real)


def _note(generated: int, real: int) -> str:
    sizes = f"{generated} generated, {real} real"
    if min(generated, real) >= FEW:
        return sizes
    return f"{sizes}: under {FEW:,} it is too large; compare only with figures of as many images"
