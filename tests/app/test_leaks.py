"""Leaks from references in sidecars, traces and storyboards."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pleinair.app.api import draw, find, home
from pleinair.app.cli.main import app
from pleinair.app.runs.results import Result
from pleinair.app.settings import load
from pleinair.app.storyboard.export import export
from pleinair.app.storyboard.words import LEAKS
from pleinair.tools.types import BadInput, Leak


def generate(**overrides: Any) -> Result:
    return draw("two things", seed=7, overrides=overrides)


def leak_of(result: Result) -> Leak:
    sidecar = json.loads(result.sidecar.read_text(encoding="utf-8"))
    (leak,) = sidecar["attempts"][1]["leaks"]
    return Leak.model_validate(leak)


def test_the_sidecar_has_the_leak(place: Path) -> None:
    leak = leak_of(generate())
    assert (leak.concept, leak.id) == ("second thing", "2.png")
    assert leak.background is not None and leak.pose is None  # quick critics find no boxes


def test_traces_show_every_leak_and_storyboards_those_over_a_limit(place: Path) -> None:
    result = generate()
    leak = leak_of(result)
    note = f"background {leak.background:.0%}, whole {leak.copied:.0%}"
    assert f"  leaked       {note}\n" in CliRunner().invoke(app, ["trace", "show", "last"]).stdout
    run = find(result.run_id)
    export(run, home(), place / "run.html")
    assert "leaked" not in (place / "run.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"leak.copied": 0}, "The image is nearly a copy of it."),
        ({"leak.background": 0.1}, "Its background came across too."),
        ({"leak.background": 0.1, "leak.check": False}, ""),
    ],
)
def test_storyboards_report_leaks_over_their_limits(limits: dict[str, Any], words: str, place: Path) -> None:
    run = find(generate(**limits).run_id)
    export(run, home(), place / "run.html")
    html = (place / "run.html").read_text(encoding="utf-8")
    assert [text for text in LEAKS.values() if text in html] == ([words] if words else [])


def test_limits_are_checked(place: Path) -> None:
    with pytest.raises(BadInput, match=r"leak\.copied = 2 .*at most 1"):
        load(overrides={"leak.copied": 2})
