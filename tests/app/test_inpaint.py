"""Inpainting in whole runs: traces, sidecars, replays, redraws, forks and resumed runs."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from pleinair.app.api import draw, find, finish, home, resume, submit
from pleinair.app.cli.main import app
from pleinair.app.runs.events import Event
from pleinair.app.runs.results import Result
from pleinair.app.storyboard.export import export
from pleinair.app.trace.diff import differ
from pleinair.app.trace.fork import fork
from pleinair.app.trace.replay import redraw, replay
from pleinair.tools.types import Attempt

PROMPT = "two things"
SETTINGS = {"generator.inpaint": True, "mllm.box": [0.0, 0.0, 0.5, 0.5]}
NOTE = "Only the box of “second thing” was inpainted; the rest is the draft."


@pytest.fixture
def result(place: Path) -> Result:
    return draw(PROMPT, seed=7, overrides=SETTINGS)


def best(result: Result) -> Attempt:
    assert result.outcome.best is not None
    return result.outcome.best


def pixels(path: Path | None) -> bytes:
    assert path is not None
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()


def test_the_sidecar_has_the_box(result: Result) -> None:
    assert (result.outcome.ending, [repair.action for repair in best(result).repairs]) == (
        "accepted",
        ["inpaint"],
    )
    draft, inpainted = json.loads(result.sidecar.read_text(encoding="utf-8"))["attempts"]
    assert inpainted["request"]["inpaint"] == {
        "concept": "second thing",
        "picture": draft["picture"],
        "box": [0.0, 0.0, 0.5, 0.5],
    }
    assert draft["request"]["inpaint"] is None


def test_traces_and_storyboards_show_the_box(result: Result, place: Path) -> None:
    shown = CliRunner().invoke(app, ["trace", "show", result.run_id]).stdout
    assert NOTE in shown and "Inpaint for “second thing”: everything else is right" in shown
    trace = json.loads(CliRunner().invoke(app, ["trace", "show", result.run_id, "--json"]).stdout)
    assert [attempt["painted"] for attempt in trace["attempts"]] == ["", NOTE]
    export(find(result.run_id), home(), place / "run.html")
    page = (place / "run.html").read_text(encoding="utf-8")
    assert NOTE in page and page.count('<g class="inpainted">') == 1
    export(find(result.run_id), home(), place / "run.png")
    assert (place / "run.png").stat().st_size > 1000


def test_a_replay_and_a_redraw_give_the_same_pixels(result: Result, place: Path) -> None:
    again = replay(result.run_id, str(place / "again"))
    assert pixels(again.picture) == pixels(result.picture)
    assert pixels(redraw(result.sidecar, out=str(place / "anew")).picture) == pixels(result.picture)


@pytest.mark.parametrize("at", ["plan", "select", "generate", "critique:1"])
def test_a_fork_has_the_image_that_is_inpainted(result: Result, at: str) -> None:
    branch = fork(result.run_id, at)
    assert best(branch).request == best(result).request
    assert pixels(branch.picture) == pixels(result.picture)


def test_a_diff_shows_the_box(result: Result) -> None:
    unboxed = fork(result.run_id, "plan", overrides={"generator.inpaint": False})
    assert [repair.action for repair in best(unboxed).repairs] == ["add_reference"]
    changes = {change.what for change in differ(result.run_id, unboxed.run_id)}
    assert {"attempt 1 · inpainted", "attempt 1 · box"} <= changes


@pytest.mark.parametrize("count", [12, 14, 16])
def test_an_interrupted_run_is_resumed(place: Path, count: int) -> None:
    events: list[Event] = []

    def interrupt(event: Event) -> None:
        events.append(event)
        if len(events) == count:
            raise KeyboardInterrupt

    run = submit(PROMPT, seed=7, overrides=SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        finish(run, interrupt)
    assert pixels(resume(run.id).picture) == pixels(draw(PROMPT, seed=7, overrides=SETTINGS).picture)
