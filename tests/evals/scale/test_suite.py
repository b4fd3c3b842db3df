"""The command of all benchmarks; each benchmark is tested by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pleinair.evals.__main__ import main
from pleinair.evals.scale import suite
from pleinair.evals.scale.command import MODULES


def test_every_benchmark_of_the_plan_reads_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    for words in suite.PLAN.values():
        sizes = ("1000",) if words[-1] == "--sizes" else ()
        assert words[0] in MODULES
        with pytest.raises(SystemExit) as end:
            main(["scale", *words, *sizes, "--help"])
        assert end.value.code == 0


def test_figures_of_a_chosen_benchmark_are_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["scale", "all", "--only", "search", "--most", "1000", "--out", str(tmp_path)]
    assert main(words) == 0
    figures = json.loads((tmp_path / "scale.json").read_text(encoding="utf-8"))
    assert [row["vectors"] for row in figures["search"]["sizes"]] == [1000]
    assert figures["machine"]["cores"] >= 1
    assert (tmp_path / "plots" / "search.svg").exists()
    assert "[1/1] search --sizes 1000" in capfd.readouterr().err


def test_a_benchmark_that_fails_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "search.json").mkdir()  # cannot be written
    words = ["scale", "all", "--only", "search", "--most", "1000", "--out", str(tmp_path)]
    assert main(words) == 1
    assert "scale search --sizes 1000" in capfd.readouterr().err


def test_too_few_images_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", "all", "--most", "10"]) == 1
    assert "--most 10: must be at least 1,000" in capsys.readouterr().err
