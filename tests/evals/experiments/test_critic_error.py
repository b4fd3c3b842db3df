"""The loop with a critic that errs: figures, bars, and a run that continues."""

import json
from pathlib import Path
from typing import Any

import pytest

from pleinair.evals.cases import make_case
from pleinair.evals.experiments.critic_error import main, missed_bars, summarise
from pleinair.tools.pocket.catalogue.library import write_library


def test_figures() -> None:
    cases = [make_case("known", number, 1) for number in range(4)]
    base = [{"right": value} for value in (1.0, 1.0, 0.0, 0.0)]
    loop = [
        {"draft": draft, "result": result, "images": images}
        for draft, result, images in ((1.0, 0.0, 3.0), (1.0, 1.0, 1.0), (0.0, 1.0, 2.0), (0.0, 1.0, 2.0))
    ]
    figures = summarise(cases, base, loop)
    assert {name: figure["mean"] for name, figure in figures.items()} == {
        "base": 0.5,
        "draft": 0.5,
        "result": 0.75,
        "over draft": 0.25,
        "over base": 0.25,
        "worse": 0.25,
        "images": 2,
    }
    assert figures["over draft"]["ci"][0] < 0.25 < figures["over draft"]["ci"][1]
    equal = [{"draft": 1.0, "result": 1.0, "images": 1.0}] * 4
    assert summarise(cases, base, equal)["worse"]["ci"][1] == pytest.approx(1 - 0.025 ** (1 / 4))


def row(worse: tuple[float, int], over_base: float) -> dict[str, Any]:
    high, n = worse
    return {"worse": {"ci": [0, high], "n": n}, "over base": {"mean": over_base}}


def test_bars() -> None:
    rare = row((0, 200), 0.6)
    assert not missed_bars({"0.2": {"known": row((0.02, 500), 0), "rare": rare}})
    for known in (row((0.03, 500), 0), row((0, 499), 0)):
        assert len(missed_bars({"0.2": {"known": known, "rare": rare}})) == 1
    assert len(missed_bars({"0.2": {"known": row((0, 500), 0), "rare": row((0, 200), 0.59)}})) == 1
    assert len(missed_bars({"0.1": {"known": row((0, 500), 0), "rare": rare}})) == 2


def test_a_run_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_library(tmp_path / "library", size=100)
    words = ["--errors", "1", "--rare", "0", "--work", str(tmp_path / "work")]
    words += ["--set", f"library={tmp_path / 'library'}", "--set", "retrieval.method=lexical"]
    main([*words, "--known", "1"])
    path = tmp_path / "work" / "critic_error.jsonl"
    first = path.read_text("utf-8")
    main([*words, "--known", "2"])
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert path.read_text("utf-8").startswith(first)
    assert [(record["section"], record["case"]) for record in records] == [
        ("base", "known-0"),
        ("loop", "known-0"),
        ("base", "known-1"),
        ("loop", "known-1"),
    ]
    assert "| 1.0 | known | 2 |" in capsys.readouterr().out
    figures = json.loads((tmp_path / "work" / "critic_error.json").read_text("utf-8"))["figures"]
    base, draft = (figures["1.0"]["known"][name]["mean"] for name in ("base", "draft"))
    assert base == draft  # the same prompt and noise
