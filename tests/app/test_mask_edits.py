"""Edits of a part of an image in whole runs: what the mask leaves stays to the bit, everywhere and always."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import quick_engines as quick
from typer.testing import CliRunner

from pleinair.app.api import draw, enqueue, estimate, find, finish, home, resume, run_table, submit
from pleinair.app.cli.main import app
from pleinair.app.runs.events import Event
from pleinair.app.runs.request import DrawRequest, read_request
from pleinair.app.runs.results import Result
from pleinair.app.storyboard.export import export
from pleinair.app.trace.fork import fork
from pleinair.app.trace.replay import redraw, replay
from pleinair.app.trace.view import view_of
from pleinair.tools.types import Attempt, BadInput, GenerateRequest, Inpaint

PROMPT = "two things"
INPAINTS = {"generator.inpaint": True}
EDIT: dict[str, Any] = {"graph": "direct", "seed": 7, "base": "base.png", "mask": "mask.png"}
SIDE = quick.SIZE


def disc(side: int = SIDE) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return np.asarray(np.hypot(rows - side / 3, columns - side / 3) < side / 4)


def picture(changes: np.ndarray, seed: int = 0) -> Image.Image:
    """Return noise that is transparent where it is to change."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*changes.shape, 4), np.uint8)
    pixels[..., 3] = np.where(changes, 0, 255)
    return Image.fromarray(pixels)


@pytest.fixture
def files(place: Path) -> Path:
    image = picture(disc())
    image.convert("RGB").save(place / "base.png")
    image.save(place / "mask.png")
    return place


def best(result: Result) -> Attempt:
    assert result.outcome.best is not None, result.outcome.reason
    return result.outcome.best


def pixels(path: Path | None) -> np.ndarray:
    assert path is not None
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def require_edit(result: Result) -> None:
    """Assert that a result is the base image but for the disc."""
    before, after = pixels(Path("base.png")), pixels(result.picture)
    assert np.array_equal(after[~disc()], before[~disc()])
    assert (after[disc()] != before[disc()]).any(-1).mean() > 0.5


def test_only_what_the_mask_leaves_open_changes(files: Path) -> None:
    result = draw(PROMPT, **EDIT, overrides=INPAINTS)
    require_edit(result)
    inpaint = best(result).request.inpaint
    assert inpaint and inpaint.masked and inpaint.concept == ""
    stored = json.loads(result.sidecar.read_text(encoding="utf-8"))
    assert stored["order"]["base"] == inpaint.picture.model_dump() == view(result)["base"]
    assert stored["attempts"][0]["request"]["inpaint"]["masked"] is True


def view(result: Result) -> dict[str, Any]:
    return view_of(run_table().get(result.run_id), home()).model_dump()


def test_the_transparent_part_of_the_base_is_its_mask(files: Path) -> None:
    result = draw(PROMPT, graph="direct", base=(files / "mask.png").read_bytes(), overrides=INPAINTS)
    require_edit(result)


def test_input_images_are_sent_beside_the_base_within_the_generators_slots(files: Path) -> None:
    Image.new("RGB", (8, 8), (1, 200, 3)).save("mine.png")
    alone = draw(PROMPT, **EDIT, overrides=INPAINTS)
    result = draw(PROMPT, **EDIT, input_images=["mine.png"], overrides=INPAINTS)
    require_edit(result)
    assert len(best(result).request.references) == 1
    assert not np.array_equal(pixels(result.picture), pixels(alone.picture))
    with pytest.raises(BadInput, match="input images: 3; .* takes 2 references beside a base image"):
        draw(PROMPT, **EDIT, input_images=["mine.png"] * 3, overrides=INPAINTS)


@pytest.mark.parametrize("graph", ["pleinair", "react", "imagerag", "crossmodal", "realrag"])
def test_other_graphs_refuse_a_base(files: Path, graph: str) -> None:
    with pytest.raises(BadInput, match=f"graph '{graph}' takes no base image; these do: direct$"):
        submit(PROMPT, **EDIT | {"graph": graph}, overrides=INPAINTS | {"realrag.method": "zero"})
    assert not home().home.exists()


def test_a_generator_that_cannot_inpaint_is_refused_with_the_profiles_that_can(files: Path) -> None:
    with pytest.raises(BadInput, match="generator `stripes` cannot inpaint; profiles that can: (.*)") as info:
        submit(PROMPT, **EDIT)
    names = str(info.value).rpartition(": ")[2].split(", ")
    assert {"klein", "sdxl", "gpt_image"} <= set(names)
    assert not {"pocket", "omnigen", "controlnet_sdxl"} & set(names)


def bad_files() -> dict[str, tuple[dict[str, Any], str]]:
    base, noise = _png(picture(disc()).convert("RGB")), _png(picture(disc()))
    return {
        "no base": ({"mask": noise}, "mask: without a base"),
        "no file": ({"base": "missing.png", "mask": noise}, "base 'missing.png': the file cannot be opened"),
        "no image": ({"base": base, "mask": b"nothing"}, "mask: not an image of a kind"),
        "empty": ({"base": b"", "mask": noise}, "base: the file is empty"),
        "other size": (
            {"base": base, "mask": _png(picture(disc(24)))},
            "mask: 24 × 24 pixels; must have those of the base, 16 × 16",
        ),
        "opaque base": ({"base": base}, "base: no pixel of it is fully transparent"),
        "opaque mask": ({"base": base, "mask": base}, "mask: no pixel of it is fully transparent"),
        "black and white": (
            {"base": base, "mask": _png(Image.fromarray(disc()).convert("L"))},
            "mask: no pixel of it is fully transparent",
        ),
        "full mask": (
            {"base": base, "mask": _png(Image.new("RGBA", (SIDE, SIDE)))},
            "mask: all of it is fully transparent",
        ),
        "full base": ({"base": _png(Image.new("RGBA", (SIDE, SIDE)))}, "base: all of it is fully"),
        "other ratio": (
            {"base": base, "mask": noise, "width": 16, "height": 32},
            "size 16 × 32: another ratio than that of the base, 16 × 16 pixels. For its width, 16 × 16",
        ),
    }


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("call", [submit, estimate])
def test_bad_files_are_refused_before_anything_is_written(place: Path, call: Any) -> None:
    for options, words in bad_files().values():
        with pytest.raises(BadInput, match=words):
            call(PROMPT, graph="direct", overrides=INPAINTS, **options)
    assert not home().home.exists()


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((16, 16), {}, (16, 16)),
        ((64, 64), {}, (16, 16)),  # more pixels than the generator's
        ((64, 16), {}, (32, 8)),
        ((17, 15), {}, (16, 16)),  # in its steps
        ((64, 64), {"width": 64, "height": 64}, (64, 64)),
        ((40, 20), {"width": 80}, (80, 40)),
        ((40, 20), {"height": 24}, (48, 24)),
    ],
)
def test_the_size_is_the_bases_or_the_one_requested(
    place: Path, size: tuple[int, int], options: dict[str, Any], expected: tuple[int, int]
) -> None:
    changes = np.zeros(size[::-1], bool)
    changes[: size[1] // 2] = True
    base = _png(picture(changes))
    result = draw(PROMPT, graph="direct", seed=1, base=base, overrides=INPAINTS, **options)
    assert pixels(result.picture).shape[:2] == expected[::-1]


def test_forks_redraws_and_replays_have_the_base(files: Path) -> None:
    first = draw(PROMPT, **EDIT, overrides=INPAINTS)
    (files / "mask.png").unlink()
    again = redraw(first.sidecar, out="again")
    assert np.array_equal(pixels(again.picture), pixels(first.picture))
    assert np.array_equal(pixels(replay(first.run_id, "replayed").picture), pixels(first.picture))
    branch = fork(first.run_id, "draft:1", seed=8)
    require_edit(branch)
    assert best(branch).request.seed == 8
    with pytest.raises(BadInput, match="24 × 16; must be those of the base image, 16 × 16"):
        fork(first.run_id, "draft:1", overrides={"image.width": 24})
    with pytest.raises(BadInput, match="cannot inpaint"):
        fork(first.run_id, "draft:1", overrides={"generator.inpaint": False})
    shutil.rmtree(home().input_images)
    with pytest.raises(BadInput, match="it is not on this machine"):
        redraw(first.sidecar)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_an_interrupted_edit_is_resumed(files: Path, count: int) -> None:
    events: list[Event] = []

    def interrupt(event: Event) -> None:
        events.append(event)
        if len(events) == count:
            raise KeyboardInterrupt

    run = submit(PROMPT, **EDIT, overrides=INPAINTS)
    with pytest.raises(KeyboardInterrupt):
        finish(run, interrupt)
    (files / "mask.png").rename(files / "gone.png")
    require_edit(resume(run.id))


def test_a_killed_edit_is_resumed(files: Path) -> None:
    run = submit(PROMPT, **EDIT, overrides=INPAINTS | {"generator.pause": 0.5})
    command = [sys.executable, "-c", f"from pleinair.app.api import resume; resume({run.id!r})"]
    with subprocess.Popen(command, env=os.environ) as process:
        events = home().events_file(run.id)
        while not (events.exists() and b'"draft"' in events.read_bytes()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    (files / "mask.png").rename(files / "gone.png")
    assert run_table().get(run.id).outcome is None
    require_edit(resume(run.id))


def test_a_queued_edit_of_several_images_and_its_key(files: Path) -> None:
    options: dict[str, Any] = EDIT | {"overrides": INPAINTS, "idempotency_key": "k"}
    runs = enqueue(PROMPT, client="a", num_images=2, **options)
    again = enqueue(PROMPT, client="a", num_images=2, **options)
    assert [run.id for run in runs] == [run.id for run in again]
    for run in runs:
        require_edit(finish(run))
    with pytest.raises(BadInput, match="base"):
        enqueue(PROMPT, client="a", num_images=2, **options | {"base": _png(picture(disc(), 5))})


def test_the_command_line_edits_and_shows_the_base(files: Path) -> None:
    words = ["draw", PROMPT, "--graph", "direct", "--base", "base.png", "--set", "generator.inpaint=true"]
    done = CliRunner().invoke(app, [*words, "--mask", "mask.png"])
    assert done.exit_code == 0, done.output
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2 and "no pixel of it is fully transparent" in refused.output
    run = find("last")
    note = "Only the transparent part of the base image was generated"
    assert note in CliRunner().invoke(app, ["trace", "show", "last"]).stdout
    export(run, home(), files / "run.html")
    page = (files / "run.html").read_text(encoding="utf-8")
    assert "generated from the prompt and the image around the mask" in page
    assert note in page and "<h3>Base image</h3>" in page and 'alt="base image"' in page
    export(run, home(), files / "run.png")
    assert (files / "run.png").stat().st_size > 1000


def test_the_pocket_generator_edits_an_image_and_leaves_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PLEINAIR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PLEINAIR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    base = picture(disc(64))
    result = draw("a hoopoe", graph="direct", seed=3, base=_png(base), overrides=INPAINTS)
    before, after = np.asarray(base.convert("RGB")), pixels(result.picture)
    assert np.array_equal(after[~disc(64)], before[~disc(64)])
    assert (after[disc(64)] != before[disc(64)]).any(-1).mean() > 0.9


def test_requests_without_a_base_are_stored_and_hashed_as_before(place: Path) -> None:
    request = read_request(submit(PROMPT, seed=1).request_json)
    assert "base" not in json.loads(request.model_dump_json())
    assert set(json.loads(DrawRequest.model_validate_json(request.model_dump_json()).model_dump_json())) >= {
        "pictures"
    }
    box = Inpaint(concept="finch", picture={"sha256": "0" * 64, "width": 8, "height": 8}, box=(0, 0, 1, 1))  # type: ignore[arg-type]
    assert list(json.loads(box.model_dump_json())) == ["concept", "picture", "box"]
    generated = GenerateRequest(
        prompt="a", height=8, width=8, num_inference_steps=1, guidance_scale=1, seed=0, inpaint=box
    )
    assert (
        generated.model_dump_json()
        == '{"prompt":"a","negative_prompt":"","references":[],"height":8,"width":8,"num_inference_steps":1,'
        '"guidance_scale":1.0,"seed":0,"inpaint":{"concept":"finch","picture":{"sha256":"' + "0" * 64 + '",'
        '"mime":"image/png","width":8,"height":8},"box":[0.0,0.0,1.0,1.0]}}'
    )


def test_a_langgraph_program_sets_the_base_of_its_input(files: Path) -> None:
    from pleinair.app.served.graphs import context_of
    from pleinair.graphs.direct import graph

    context = context_of({"settings": INPAINTS}, "direct", "file")
    image = picture(disc())
    base = context.store.put(image, alpha=True)
    output = graph.invoke({"prompt": PROMPT, "base": base}, context=context)
    after = np.asarray(context.store.open(Attempt.model_validate(output["attempts"][0]).picture))
    assert np.array_equal(after[~disc()], np.asarray(image.convert("RGB"))[~disc()])
    opaque = context.store.put(image.convert("RGB"))
    with pytest.raises(BadInput, match="nothing would change"):
        graph.invoke({"prompt": PROMPT, "base": opaque}, context=context)
    with pytest.raises(BadInput, match="image to inpaint has 16 × 16 pixels; must be 32 × 16"):
        graph.invoke({"prompt": PROMPT, "base": base, "width": 32}, context=context)
