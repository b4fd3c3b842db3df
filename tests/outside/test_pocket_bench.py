"""The whole benchmark, once, on the trained models."""

import json
from pathlib import Path

import pytest

from pleinair.evals.__main__ import main
from pleinair.evals.cases import TIERS
from pleinair.evals.run import GRAPHS

pytestmark = [
    pytest.mark.slow,
]


def test_four_prompts_give_every_figure(tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert main(f"pocket --prompts 4 --seed 5 --json {tmp_path}/f.json --out {out}".split()) == 0
    figures = json.loads((tmp_path / "f.json").read_text("utf-8"))
    assert all(figures[tier][column]["n"] == 1 for tier in TIERS for column in GRAPHS)
    assert all(figures["graphs"][column]["faults"] == [] for column in GRAPHS)
    assert {path.name for path in out.iterdir()} == {
        "report.md",
        "results.jsonl",
        "accuracy.png",
        "calibration.png",
        "examples.png",
    }
    assert len((out / "results.jsonl").read_text("utf-8").splitlines()) == 4 * len(GRAPHS)
