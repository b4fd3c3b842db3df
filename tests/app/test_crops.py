"""A crop is the user's to see: in the record, in the traces, in what is replayed and forked."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from pleinair.app.api import draw, find, home
from pleinair.app.cli.main import app
from pleinair.app.engines import library_folder
from pleinair.app.paths import places
from pleinair.app.runs.results import Result
from pleinair.app.settings import load
from pleinair.app.storyboard.export import export
from pleinair.app.trace.diff import differ
from pleinair.app.trace.fork import fork
from pleinair.app.trace.replay import redraw, replay
from pleinair.tools.images.crops import CropOptions
from pleinair.tools.pocket.library import FORMAT
from pleinair.tools.types import BadInput

CLOSE = {"crops.least": 4, "crops.margin": 0}
CROP = [0.0, 0.0, 0.5, 0.5]
SAID = "cut to 8 × 8 of 16 × 16 pixels"


@pytest.fixture
def boxed(place: Path) -> Path:
    """Say of every picture of the library where its two things stand."""
    file = place / "library" / "metadata.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    where = {"Second  Thing": CROP, "first": [0.5, 0.5, 1, 1]}
    text = "\n".join(json.dumps(line | {"boxes": where}) for line in lines)
    file.write_text(text, encoding="utf-8")
    return place


def drawn(**overrides: Any) -> Result:
    return draw("two things", seed=7, overrides=CLOSE | overrides)


def record(result: Result) -> dict[str, Any]:
    return dict(json.loads(result.sidecar.read_text(encoding="utf-8")))


def sizes(page: str) -> list[tuple[int, int]]:
    found = re.findall(r"data:image/png;base64,([^\"]+)", page)
    return [Image.open(io.BytesIO(base64.b64decode(one))).size for one in found]


def test_the_record_and_the_picture_tell_the_crop(boxed: Path) -> None:
    result = drawn()
    told = record(result)
    assert told["references"][0]["crop"] == CROP
    assert told["attempts"][1]["request"]["references"][0]["crop"] == CROP
    assert result.picture is not None
    with Image.open(result.picture) as picture:
        assert json.loads(picture.info["pleinair"])["references"][0]["crop"] == CROP


def test_without_boxes_nothing_is_said_of_crops(place: Path) -> None:
    assert "crop" not in record(drawn())["references"][0]
    assert "cut to" not in CliRunner().invoke(app, ["trace", "show", "last"]).stdout


def test_the_storyboards_show_what_was_sent(boxed: Path) -> None:
    run = find(drawn().run_id)
    export(run, home(), boxed / "run.html")
    page = (boxed / "run.html").read_text(encoding="utf-8")
    assert SAID in page and sizes(page).count((8, 8)) == 1
    export(run, home(), boxed / "run.png")
    whole = find(drawn(**{"crops.when": "never"}).run_id)
    export(whole, home(), boxed / "whole.png")
    assert (boxed / "run.png").read_bytes() != (boxed / "whole.png").read_bytes()


def test_a_terminal_and_a_program_are_told(boxed: Path) -> None:
    drawn()
    assert f"; {SAID}; CC0-1.0" in CliRunner().invoke(app, ["trace", "show", "last"]).stdout
    told = json.loads(CliRunner().invoke(app, ["trace", "show", "last", "--json"]).stdout)
    assert told["attempts"][1]["credits"][0]["crop"] == CROP


def test_runs_with_and_without_differ_in_it(boxed: Path) -> None:
    found = {one.what: one for one in differ(drawn().run_id, drawn(**{"crops.when": "never"}).run_id)}
    assert found["attempt 1 · reference · second thing"].first.endswith(SAID)
    assert "cut" not in found["attempt 1 · reference · second thing"].second
    assert found["settings · crops · when"].second == "never"


def test_replay_redraw_and_fork_keep_it(boxed: Path) -> None:
    first = drawn()
    assert record(replay(first.run_id, str(boxed / "again"))) == record(first)
    assert record(redraw(first.sidecar, out=str(boxed / "anew")))["references"][0]["crop"] == CROP
    branch = fork(first.run_id, "generate", overrides={"crops.when": "never"})  # the request is fixed before
    assert record(branch)["references"][0]["crop"] == CROP


def test_options_are_checked(place: Path) -> None:
    with pytest.raises(BadInput, match=r"crops\.least = 0 .*greater than or equal to 1"):
        load(overrides={"crops.least": 0})
    with pytest.raises(BadInput, match=r"crops\.when = 'sometimes'.*'never', 'apart' or 'always'"):
        load(overrides={"crops.when": "sometimes"})
    assert load().crops == CropOptions(least=16)


def test_a_pocket_library_of_another_format_is_not_served(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(overrides={"library.folder": "pocket"})
    monkeypatch.setattr(
        "pleinair.tools.pocket.library.write_library", lambda folder: folder.mkdir(parents=True)
    )
    now = library_folder(settings, places(str(place / "home")))
    assert now.name.endswith(f"-{FORMAT}") and now.is_dir()
    monkeypatch.setattr("pleinair.tools.pocket.library.FORMAT", FORMAT + 1)
    assert library_folder(settings, places(str(place / "home"))) != now
