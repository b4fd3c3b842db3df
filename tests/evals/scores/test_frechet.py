"""Fréchet and kernel distances of known sets, and FID's network; see `tests/outside/test_fid.py` too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from support.inception_weights import save_inception

from pleinair.evals.scores.features import Features
from pleinair.evals.scores.frechet import (
    FrechetDistance,
    KernelDistance,
    frechet,
    kernel_distance,
    statistics,
)
from pleinair.evals.scores.inception import Inception
from pleinair.evals.scores.items import Generated, score
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors


def normal(n: int, mean: float = 0.0, spread: float = 1.0, dim: int = 4) -> Vectors:
    rows: Vectors = np.random.default_rng(0).normal(mean, spread, (n, dim)).astype(np.float32)
    return rows


def test_equal_sets_have_no_distance_also_with_few_images() -> None:
    assert frechet(normal(50), normal(50)) == pytest.approx(0, abs=1e-6)
    assert frechet(normal(3, dim=16), normal(3, dim=16)) == pytest.approx(0, abs=1e-6)


def test_the_distance_of_moved_and_widened_sets_is_known() -> None:
    assert frechet(normal(50), normal(50) + 0.5) == pytest.approx(4 * 0.25, rel=1e-4)
    rows = normal(50)
    spread = np.cov(rows, rowvar=False).trace()
    assert frechet(rows, 3 * (rows - rows.mean(axis=0)) + rows.mean(axis=0)) == pytest.approx(
        4 * spread, rel=1e-4
    )


def test_it_is_the_published_form() -> None:
    from scipy.linalg import sqrtm

    rows, others = normal(60) @ np.diag([1, 2, 3, 4]), normal(80, 0.3)[::-1] @ np.triu(np.ones((4, 4)))
    first, second = np.cov(rows, rowvar=False), np.cov(others, rowvar=False)
    apart = ((rows.mean(axis=0) - others.mean(axis=0)) ** 2).sum()
    expected = apart + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet(rows, others) == pytest.approx(expected, rel=1e-4)


def test_few_images_of_one_kind_are_further_apart_than_many() -> None:
    rows = normal(2000, dim=16)
    few, many = (frechet(rows[:n], rows[n : 2 * n]) for n in (20, 1000))
    assert few > 5 * many


def test_a_single_image_is_refused() -> None:
    with pytest.raises(BadInput, match="1 and 5 images"):
        frechet(normal(1), normal(5))
    with pytest.raises(BadInput, match="5 and 1 images"):
        kernel_distance(normal(5), normal(1))


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_statistics_do_not_depend_on_the_parts_and_are_numpys(size: int) -> None:
    rows = normal(500, mean=1000.0, spread=0.01, dim=12)  # a sum of squares in float32 would lose the spread
    parts = statistics(rows[start : start + size] for start in range(0, len(rows), size))
    exact = rows.astype(np.float64)
    assert parts.n == 500
    assert np.allclose(parts.mean, exact.mean(axis=0), rtol=1e-12)
    assert np.allclose(parts.covariance, np.cov(exact, rowvar=False), rtol=1e-6, atol=1e-12)


def test_the_kernel_distance_is_the_published_form_and_unbiased() -> None:
    rows, others = normal(6, dim=3), normal(12, mean=0.4, dim=3)[6:]
    within, across, beyond = (
        np.array([[(x @ y / 3 + 1) ** 3 for y in second] for x in first], dtype=float)
        for first, second in ((rows, rows), (rows, others), (others, others))
    )
    expected = sum((each.sum() - each.trace()) / (6 * 5) for each in (within, beyond)) - 2 * across.mean()
    assert kernel_distance(rows, others) == pytest.approx(expected, rel=1e-5)
    sets = [normal(4000, dim=16)[n : n + 40] for n in range(0, 4000, 40)]
    values = [kernel_distance(first, second) for first, second in zip(sets[::10], sets[1::10], strict=True)]
    assert min(values) < 0 < max(values)


# Inception

# the first of the 2,048 features of `noise()` by torch-fidelity 0.4.0 with these weights
THEIRS = [
    [0.147889, 0.075313, 0.0, 0.179099],
    [0.334722, 0.113347, 0.0, 0.231516],
    [0.774113, 0.205642, 0.0, 0.344708],
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_inception(tmp_path_factory.mktemp("inception") / "inception.pth")


def noise() -> list[Image.Image]:
    """Return images of noise of different sizes and contrasts."""
    rng = np.random.default_rng(0)
    sizes = ((40, 50), (375, 500), (299, 299))
    return [
        Image.fromarray(rng.integers(0, 80 * (number + 1), (*size, 3), dtype=np.uint8))
        for number, size in enumerate(sizes)
    ]


def test_features_are_torch_fidelitys(weights: Path) -> None:
    judge = Inception(str(weights))
    vectors = judge.encode_images(noise())
    assert vectors.shape == (3, 2048)
    assert np.allclose(vectors[:, :4], THEIRS, atol=1e-3)
    assert judge.id.startswith("inception@")


class FirstFeatures:
    """The first 32 features of a network: the root of a covariance of 2,048 takes seconds."""

    id = "first"

    def __init__(self, network: Inception) -> None:
        self._network = network

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        return self._network.encode_images(images)[:, :32]


def test_fid_states_its_numbers_of_images(weights: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(paths, noise(), strict=True):
        image.save(path)
    features = Features(FirstFeatures(Inception(str(weights))), tmp_path)
    items = [Generated(path, "noise", tuple(paths[1:])) for path in paths[:2]]
    fid, kid = score(items, [FrechetDistance("FID", features), KernelDistance("KID", features)])
    rows = features.rows(paths)
    assert fid.mean == pytest.approx(frechet(rows[:2], rows[1:]), rel=1e-6)
    assert (fid.n, fid.real, fid.interval, fid.values) == (2, 2, None, ())
    assert fid.note.startswith("2 generated, 2 real: under 10,000 it is too large; compare only with")
    assert (kid.n, kid.note) == (2, "2 generated, 2 real")
    for scorer in (FrechetDistance("FID", features), KernelDistance("KID", features)):
        with pytest.raises(BadInput, match="2 and 1 images"):
            score([Generated(path, "noise", (paths[0],)) for path in paths[:2]], [scorer])


def test_other_weights_and_code_are_refused_with_what_to_fetch(tmp_path: Path) -> None:
    other, pickled = tmp_path / "other.pth", tmp_path / "code.pth"
    torch.save({"fc.weight": torch.zeros(2)}, other)
    torch.save({"fc.weight": tmp_path}, pickled)  # unpickling it calls a class
    cases = (
        (tmp_path / "none.pth", "is not a file"),
        (other, "has other weights"),
        (pickled, "no weights that can"),
    )
    for path, message in cases:
        with pytest.raises(BadInput, match=message) as error:
            Inception(str(path))
        assert "95 MB, Apache-2.0" in error.value.remedy
