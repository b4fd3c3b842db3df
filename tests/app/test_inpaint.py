"""A box painted anew in a whole run: told, recorded, replayed, drawn again, forked and resumed."""

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
SAID = "Only the box of “second thing” was inpainted; the rest is the draft."


@pytest.fixture
def drawn(place: Path) -> Result:
    return draw(PROMPT, seed=7, overrides=SETTINGS)


def best(result: Result) -> Attempt:
    assert result.outcome.best is not None
    return result.outcome.best


def pixels(path: Path | None) -> bytes:
    assert path is not None
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()


def test_the_record_says_what_was_painted_in(drawn: Result) -> None:
    assert (drawn.outcome.ending, [one.action for one in best(drawn).repairs]) == ("accepted", ["inpaint"])
    draft, painted = json.loads(drawn.sidecar.read_text(encoding="utf-8"))["attempts"]
    assert painted["request"]["inpaint"] == {
        "concept": "second thing",
        "picture": draft["picture"],
        "box": [0.0, 0.0, 0.5, 0.5],
    }
    assert draft["request"]["inpaint"] is None


def test_it_is_told_everywhere(drawn: Result, place: Path) -> None:
    shown = CliRunner().invoke(app, ["trace", "show", drawn.run_id]).stdout
    assert SAID in shown and "Inpaint for “second thing”: everything else is right" in shown
    told = json.loads(CliRunner().invoke(app, ["trace", "show", drawn.run_id, "--json"]).stdout)
    assert [one["painted"] for one in told["attempts"]] == ["", SAID]
    export(find(drawn.run_id), home(), place / "run.html")
    page = (place / "run.html").read_text(encoding="utf-8")
    assert SAID in page and page.count('<g class="painted">') == 1
    export(find(drawn.run_id), home(), place / "run.png")
    assert (place / "run.png").stat().st_size > 1000


def test_a_replay_and_a_record_drawn_anew_give_the_same_pixels(drawn: Result, place: Path) -> None:
    again = replay(drawn.run_id, str(place / "again"))
    assert pixels(again.picture) == pixels(drawn.picture)
    assert pixels(redraw(drawn.sidecar, out=str(place / "anew")).picture) == pixels(drawn.picture)


@pytest.mark.parametrize("at", ["plan", "select", "generate", "critique:1"])
def test_a_fork_has_the_picture_that_is_painted_in(drawn: Result, at: str) -> None:
    branch = fork(drawn.run_id, at)
    assert best(branch).request == best(drawn).request
    assert pixels(branch.picture) == pixels(drawn.picture)


def test_another_reference_for_the_box_is_another_run(drawn: Result) -> None:
    whole = fork(drawn.run_id, "plan", overrides={"generator.inpaint": False})
    assert [one.action for one in best(whole).repairs] == ["add_reference"]
    named = {one.what for one in differ(drawn.run_id, whole.run_id)}
    assert {"attempt 1 · inpainted", "attempt 1 · box"} <= named


@pytest.mark.parametrize("count", [12, 14, 16])
def test_a_run_that_was_cut_short_is_resumed(place: Path, count: int) -> None:
    seen: list[Event] = []

    def until(event: Event) -> None:
        seen.append(event)
        if len(seen) == count:
            raise KeyboardInterrupt

    run = submit(PROMPT, seed=7, overrides=SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        finish(run, until)
    assert pixels(resume(run.id).picture) == pixels(draw(PROMPT, seed=7, overrides=SETTINGS).picture)
