"""FID and KID are torch-fidelity's; it is installed apart, as its wheel has a top-level package `tests`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.inception_weights import save_inception

from pleinair.evals.scores.features import Features
from pleinair.evals.scores.frechet import FrechetDistance, kernel_distance
from pleinair.evals.scores.inception import Inception
from pleinair.evals.scores.items import Generated
from pleinair.tools.callbacks import no_callback

PROGRAM = """
import json, sys
from torch_fidelity import calculate_metrics
first, second, weights = sys.argv[1:]
print(json.dumps(calculate_metrics(
    input1=first, input2=second, feature_extractor_weights_path=weights, fid=True, kid=True, kid_subsets=1,
    kid_subset_size=12, cuda=False, cache=False, verbose=False, batch_size=4, save_cpu_ram=True,
)))
"""


def write(folder: Path, highest: int) -> list[Path]:
    """Write twelve images of noise up to a brightness."""
    folder.mkdir()
    rng = np.random.default_rng(highest)
    paths = [folder / f"{number:02}.png" for number in range(12)]
    for path in paths:
        Image.fromarray(rng.integers(0, highest, (80, 60, 3), dtype=np.uint8)).save(path)
    return paths


def test_both_distances_are_torch_fidelitys(tmp_path: Path) -> None:
    package = tmp_path / "package"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(package)]
    subprocess.run([*pip, "torch-fidelity==0.4.0"], check=True)
    weights = save_inception(tmp_path / "inception.pth")
    first, second = write(tmp_path / "first", 120), write(tmp_path / "second", 200)
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "first"), str(tmp_path / "second"), str(weights)]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    theirs = json.loads(subprocess.run(words, check=True, capture_output=True, env=environment).stdout)
    features = Features(Inception(str(weights)), tmp_path)
    items = [Generated(path, "noise", tuple(second)) for path in first]
    distance = FrechetDistance("FID", features).score(items, no_callback)
    assert distance == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    kernel = kernel_distance(features.rows(first), features.rows(second))
    assert kernel == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
