"""The benchmark of attempts counts what is encoded again, and compares the images of both sides."""

import json
from pathlib import Path

import pytest

from pleinair.evals.__main__ import main


def test_one_round_of_the_pocket_generator(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert main(["scale", "attempts", "--model", "pocket", "--rounds", "1", "--json", str(file)]) == 0
    figures = json.loads(file.read_text(encoding="utf-8"))
    encodings, batches = figures["pocket"]["encodings"], figures["pocket"]["batches"]
    # four attempts of one prompt, with guidance an empty one too, and 0, 1, 2 and 2 references
    assert (encodings["misses"], encodings["hits"]) == (3, 10)
    assert batches["largest_difference"] <= 1
    assert all(figures["pocket"][name]["n"] == 1 for name in ("encodings", "batches", "threads"))


def test_no_round_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", "attempts", "--rounds", "0"]) == 1
    assert "--rounds 0: must be at least 1" in capsys.readouterr().err
