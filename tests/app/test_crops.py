"""Crops of references: in sidecars, traces, storyboards, replays and forks."""

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
from pleinair.app.libraries import library_folders
from pleinair.app.paths import places
from pleinair.app.runs.results import Result
from pleinair.app.settings import load
from pleinair.app.storyboard.export import export
from pleinair.app.trace.diff import differ
from pleinair.app.trace.fork import fork
from pleinair.app.trace.replay import redraw, replay
from pleinair.tools.images.crops import CropOptions
from pleinair.tools.pocket.catalogue.library import FORMAT
from pleinair.tools.types import BadInput

CLOSE = {"crops.least": 4, "crops.margin": 0}
CROP = [0.0, 0.0, 0.5, 0.5]
NOTE = "cut to 8 × 8 of 16 × 16 pixels"


@pytest.fixture
def boxed(place: Path) -> Path:
    """Add boxes of two concepts to every image of the library."""
    file = place / "library" / "metadata.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    boxes = {"Second  Thing": CROP, "first": [0.5, 0.5, 1, 1]}
    text = "\n".join(json.dumps(line | {"boxes": boxes}) for line in lines)
    file.write_text(text, encoding="utf-8")
    return place


def generate(**overrides: Any) -> Result:
    return draw("two things", seed=7, overrides=CLOSE | overrides)


def sidecar(result: Result) -> dict[str, Any]:
    return dict(json.loads(result.sidecar.read_text(encoding="utf-8")))


def sizes(page: str) -> list[tuple[int, int]]:
    images = re.findall(r"data:image/png;base64,([^\"]+)", page)
    return [Image.open(io.BytesIO(base64.b64decode(image))).size for image in images]


def test_the_sidecar_and_the_image_have_the_crop(boxed: Path) -> None:
    result = generate()
    facts = sidecar(result)
    assert facts["references"][0]["crop"] == CROP
    assert facts["attempts"][1]["request"]["references"][0]["crop"] == CROP
    assert result.picture is not None
    with Image.open(result.picture) as picture:
        assert json.loads(picture.info["pleinair"])["references"][0]["crop"] == CROP


def test_without_boxes_there_are_no_crops(place: Path) -> None:
    assert "crop" not in sidecar(generate())["references"][0]
    assert "cut to" not in CliRunner().invoke(app, ["trace", "show", "last"]).stdout


def test_the_storyboards_show_what_was_sent(boxed: Path) -> None:
    run = find(generate().run_id)
    export(run, home(), boxed / "run.html")
    page = (boxed / "run.html").read_text(encoding="utf-8")
    assert NOTE in page and sizes(page).count((8, 8)) == 1
    export(run, home(), boxed / "run.png")
    uncropped = find(generate(**{"crops.when": "never"}).run_id)
    export(uncropped, home(), boxed / "uncropped.png")
    assert (boxed / "run.png").read_bytes() != (boxed / "uncropped.png").read_bytes()


def test_trace_show_has_the_crop_as_text_and_json(boxed: Path) -> None:
    generate()
    assert f"; {NOTE}; CC0-1.0" in CliRunner().invoke(app, ["trace", "show", "last"]).stdout
    trace = json.loads(CliRunner().invoke(app, ["trace", "show", "last", "--json"]).stdout)
    assert trace["attempts"][1]["credits"][0]["crop"] == CROP


def test_a_diff_shows_the_crop(boxed: Path) -> None:
    changes = {
        change.what: change
        for change in differ(generate().run_id, generate(**{"crops.when": "never"}).run_id)
    }
    assert changes["attempt 1 · reference · second thing"].first.endswith(NOTE)
    assert "cut" not in changes["attempt 1 · reference · second thing"].second
    assert changes["settings · crops · when"].second == "never"


def test_replay_redraw_and_fork_keep_the_crop(boxed: Path) -> None:
    first = generate()
    assert sidecar(replay(first.run_id, str(boxed / "again"))) == sidecar(first)
    assert sidecar(redraw(first.sidecar, out=str(boxed / "anew")))["references"][0]["crop"] == CROP
    branch = fork(first.run_id, "generate", overrides={"crops.when": "never"})  # the request is fixed before
    assert sidecar(branch)["references"][0]["crop"] == CROP


def test_options_are_checked(place: Path) -> None:
    with pytest.raises(BadInput, match=r"crops\.least = 0 .*at least 1"):
        load(overrides={"crops.least": 0})
    with pytest.raises(BadInput, match=r"crops\.when = 'sometimes'.*'never', 'apart' or 'always'"):
        load(overrides={"crops.when": "sometimes"})
    assert load().crops == CropOptions(when="always", margin=0.2, least=24)


def test_a_pocket_library_of_another_format_is_not_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(overrides={"library.folder": "pocket"})
    monkeypatch.setattr(
        "pleinair.tools.pocket.catalogue.library.write_library", lambda path: path.mkdir(parents=True)
    )
    (folder,) = library_folders(settings, places(str(place / "home")))
    assert folder.endswith(f"-{FORMAT}") and Path(folder).is_dir()
    monkeypatch.setattr("pleinair.tools.pocket.catalogue.library.FORMAT", FORMAT + 1)
    assert library_folders(settings, places(str(place / "home"))) != (folder,)
