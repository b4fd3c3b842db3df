"""Benchmarks of cost against size: each is found by its name."""

import json
from pathlib import Path

import pytest

from pleinair.evals.__main__ import main
from pleinair.evals.scale import command


def test_the_help_lists_each_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["scale", "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert all(f"  {name} " in text and line in text for name, (_, line) in command.MODULES.items())


@pytest.mark.parametrize("name", command.MODULES)
def test_a_benchmark_has_a_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["scale", name, "--help"])
    assert end.value.code == 0 and "--json" in capsys.readouterr().out


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["scale", "nope"])
    assert "startup" in capsys.readouterr().err


def test_figures_are_written_with_their_command(tmp_path: Path) -> None:
    command.write_figures(None, {"ratio": 1})
    command.write_figures(tmp_path / "new" / "figures.json", {"ratio": 1})
    assert '"ratio": 1' in (tmp_path / "new" / "figures.json").read_text(encoding="utf-8")


def test_a_step_and_a_turn_are_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert main(["scale", "steps", "--json", str(file), "--steps", "2", "--turns", "2"]) == 0
    figures = json.loads(file.read_text(encoding="utf-8"))
    assert all(step["ours"]["bytes"] < 30_000 for step in figures["steps"])
    assert len(figures["turns"]["bytes"]) == 2
    assert [[row["steps"] for row in rows] for rows in figures["memory"].values()] == [[1, 2], [1, 2]]
    assert figures["memory"]["ours"][0] == {"steps": 1, "resident_mb": 0, "anonymous_mb": 0}
    assert "2 turns: " in capsys.readouterr().out
