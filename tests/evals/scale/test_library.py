from __future__ import annotations

import json
from pathlib import Path

import pytest

from pleinair.evals.__main__ import main
from pleinair.evals.scale.library import write_synthetic
from pleinair.tools.retrieval.manifest import load_manifest


def test_a_library_is_built_opened_and_searched_in_processes_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "library.json"
    assert main(["scale", "library", "--sizes", "300", "--repeat", "1", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text(encoding="utf-8"))["sizes"]
    assert row["images"] == 300
    assert row["bytes"]["exact vectors"] == 300 * 512 * 4
    assert 0 < row["bytes"]["codes"] < 1000  # the file's head: there are none
    assert row["write_peak_mb"] > 50
    assert 0 <= row["search_anonymous_mb"] <= row["search_mb"] + 1
    assert "300 images: opened in " in capsys.readouterr().out


def test_the_same_seed_writes_the_same_library(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_synthetic(tmp_path / name, 50, seed)
    manifests = [load_manifest(tmp_path / name) for name in "abc"]
    assert manifests[0].vectors == manifests[1].vectors != manifests[2].vectors
    assert manifests[0].words == manifests[1].words != manifests[2].words
