"""Fréchet and kernel distances: known sets, the published form, and torch-fidelity's own figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from pleinair.evals.scores.features import Features
from pleinair.evals.scores.frechet import (
    FrechetDistance,
    KernelDistance,
    distance,
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
def test_statistics_do_not_depend_on_the_parts_and_are_torch_fidelitys(size: int) -> None:
    rows = normal(500, mean=1000.0, spread=0.01, dim=12)  # a sum of squares in float32 would lose the spread
    parts = statistics(rows[start : start + size] for start in range(0, len(rows), size))
    theirs = fid_features_to_statistics(torch.from_numpy(rows.astype(np.float64)))
    assert parts.n == 500
    assert np.allclose(parts.mean, theirs["mu"], rtol=1e-12)
    assert np.allclose(parts.covariance, theirs["sigma"], rtol=1e-6, atol=1e-12)


def test_the_kernel_distance_is_torch_fidelitys_and_unbiased() -> None:
    rows, others = normal(40, dim=16), normal(80, mean=0.4, dim=16)[40:]
    options = {"kid_subsets": 1, "kid_subset_size": 40, "verbose": False}
    theirs = kid_features_to_metric(torch.from_numpy(rows), torch.from_numpy(others), **options)
    ours = kernel_distance(rows, others)
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    sets = [normal(4000, dim=16)[n : n + 40] for n in range(0, 4000, 40)]
    values = [kernel_distance(first, second) for first, second in zip(sets[::10], sets[1::10], strict=True)]
    assert min(values) < 0 < max(values)


# Inception


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of torch-fidelity's class, as its authors save them."""
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.manual_seed(0)
    blank = FeatureExtractorInceptionV3.__new__(FeatureExtractorInceptionV3)
    with pytest.MonkeyPatch.context() as patch:  # the class cannot be built without weights
        patch.setattr(torch, "load", lambda *_, **__: None)
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        blank.__init__("inception-v3-compat", ["2048"], "none")
    torch.save(blank.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve images of noise, of different sizes."""
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(12)]
    for number, path in enumerate(paths):
        pixels = rng.integers(0, 20 * (number + 1), (40 + number, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def pixels_of(path: Path) -> Any:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).unsqueeze(0)


def test_fid_is_torch_fidelitys(weights: Path, files: list[Path], tmp_path: Path) -> None:
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["64"], str(weights))
    rows = torch.cat([network(pixels_of(path))[0] for path in files]).double()
    sets = [fid_features_to_statistics(part) for part in (rows[:6], rows[6:])]
    expected = fid_statistics_to_metric(*sets, verbose=False)["frechet_inception_distance"]
    features = Features(Inception(str(weights), layer="64"), tmp_path)
    items = [Generated(path, "noise", tuple(files[6:])) for path in files[:6]]
    fid, kid = score(items, [FrechetDistance("FID", features), KernelDistance("KID", features)])
    assert expected > 0
    assert fid.mean == pytest.approx(expected, rel=1e-4)
    assert (fid.n, fid.real, fid.interval, fid.values) == (6, 6, None, ())
    assert (
        fid.note
        == "6 generated, 6 real: under 10,000 it is too large; compare only with figures of as many images"
    )
    assert kid.note == "6 generated, 6 real"


def test_the_last_pooling_is_fids_layer(weights: Path, files: list[Path]) -> None:
    judge = Inception(str(weights))
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(weights))
    vectors = judge.encode_images([Image.open(path) for path in files[:2]])
    assert vectors.shape == (2, 2048)
    assert np.allclose(vectors[1], network(pixels_of(files[1]))[0][0], atol=1e-5)
    assert judge.id.startswith("inception:2048@")


def test_other_weights_and_code_are_refused_with_what_to_fetch(tmp_path: Path) -> None:
    other, pickled = tmp_path / "other.pth", tmp_path / "code.pth"
    torch.save({"fc.weight": torch.zeros(2)}, other)
    torch.save({"fc.weight": tmp_path}, pickled)  # unpickling it calls a class
    cases = (
        (tmp_path / "none.pth", "is not a file"),
        (other, "has other weights"),
        (pickled, "no weights that can be read"),
    )
    for path, message in cases:
        with pytest.raises(BadInput, match=message) as error:
            Inception(str(path))
        assert "95 MB, Apache-2.0" in error.value.remedy


def test_the_distance_of_all_statistics_needs_no_features() -> None:
    first, second = (statistics([rows]) for rows in (normal(50), normal(50) + 0.5))
    assert distance(first, second) == pytest.approx(1.0, rel=1e-4)
