"""Replay calls no model and gives what was; a record drawn anew gives the same pixels on the same machine."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from pleinair.app.api import draw, home, submit
from pleinair.app.cli.main import app
from pleinair.app.runs.results import Result
from pleinair.app.trace.fork import fork
from pleinair.app.trace.replay import redraw, replay
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.storage.artifacts import BadArtifact
from pleinair.tools.types import BadInput

PROMPT = "two things"
NEVER = {"mllm.satisfied": False}
PARTS = ("generator", "encoder", "detector")
TRAINED = all(list((SHIPPED / part).rglob("*.safetensors")) for part in PARTS)


@pytest.fixture
def result(place: Path) -> Result:
    return draw(PROMPT, seed=7)


def stored(result: Result, kind: str) -> Path:
    """Return the file of a run's best image, or of its first reference, in the run's store."""
    best = result.outcome.best
    assert best is not None
    picture = best.picture if kind == "picture" else best.request.references[0].picture
    return next(home().run(result.run_id).rglob(f"{picture.sha256}.png"))


def pixels(path: Path | None) -> bytes:
    assert path is not None
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()


def test_it_writes_the_same_files_again_without_any_call(result: Result, place: Path) -> None:
    before = (place / "effects.log").read_bytes()
    again = replay(result.run_id, str(place / "again"))
    assert again.sidecar.read_bytes() == result.sidecar.read_bytes()
    assert again.picture is not None and result.picture is not None
    assert again.picture.read_bytes() == result.picture.read_bytes()
    assert (again.run_id, again.outcome, again.seed) == (result.run_id, result.outcome, result.seed)
    assert (place / "effects.log").read_bytes() == before


def test_every_attempt_is_written_as_it_was_stored(result: Result, place: Path) -> None:
    again = replay("last", str(place / "again"))
    attempts = json.loads(again.sidecar.read_text(encoding="utf-8"))["attempts"]
    names = [f"{again.sidecar.stem}-attempt-{attempt['number']}.png" for attempt in attempts]
    assert sorted(path.name for path in (place / "again").iterdir()) == sorted(
        [f"{again.sidecar.stem}.json", f"{again.sidecar.stem}.png", *names]
    )
    from hashlib import sha256

    digests = [sha256((place / "again" / name).read_bytes()).hexdigest() for name in names]
    assert digests == [attempt["picture"]["sha256"] for attempt in attempts]


def test_lost_results_are_restored(result: Result) -> None:
    assert result.picture is not None
    before = result.picture.read_bytes()
    result.picture.unlink()
    assert replay(result.run_id) == result
    assert result.picture.read_bytes() == before


def test_no_engine_is_needed(result: Result, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "plugin" not in path])
    (place / "library").rename(place / "elsewhere")
    assert replay(result.run_id, str(place / "again")).outcome == result.outcome


@pytest.mark.parametrize("kind", ["picture", "reference"])
def test_a_missing_image_is_reported_and_nothing_is_written(result: Result, place: Path, kind: str) -> None:
    lost = stored(result, kind)
    lost.unlink()
    with pytest.raises(BadArtifact, match=rf"{lost.stem} is not in the store"):
        replay(result.run_id, str(place / "again"))
    assert not (place / "again").exists()


@pytest.mark.parametrize("kind", ["picture", "reference"])
def test_an_altered_image_is_reported(result: Result, place: Path, kind: str) -> None:
    altered = stored(result, kind)
    Image.new("RGB", (16, 16), "red").save(altered)
    with pytest.raises(BadArtifact, match=rf"{altered.stem} in .* has changed"):
        replay(result.run_id, str(place / "again"))


def test_a_run_without_an_image_has_a_sidecar(place: Path) -> None:
    failed = draw(PROMPT, overrides={"generator.fault": "boom"})
    again = replay(failed.run_id, str(place / "again"))
    assert again.picture is None
    assert again.sidecar.read_bytes() == failed.sidecar.read_bytes()


def test_a_fork_is_replayed_with_its_parents_images(result: Result, place: Path) -> None:
    branch = fork(result.run_id, "critique:2", overrides=NEVER)
    again = replay(branch.run_id, str(place / "again"))
    assert again.sidecar.read_bytes() == branch.sidecar.read_bytes()
    assert len(list((place / "again").glob("*attempt*"))) == 3


def test_a_run_that_has_not_ended_is_refused(place: Path) -> None:
    with pytest.raises(BadInput, match=r"has not ended \(status: queued\)"):
        replay(submit(PROMPT).id)


def test_a_log_without_an_end_is_refused(result: Result) -> None:
    path = home().events_file(result.run_id)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"events\.jsonl: the event `ended` is missing"):
        replay(result.run_id)


def test_the_command_prints_the_files_or_the_error(result: Result, place: Path) -> None:
    done = CliRunner().invoke(app, ["trace", "replay", "last", "--out", str(place / "again")])
    assert done.exit_code == 0, done.output
    assert [Path(line).exists() for line in done.stdout.splitlines()] == [True, True]
    stored(result, "picture").unlink()
    done = CliRunner().invoke(app, ["trace", "replay", "last"])
    assert (done.exit_code, done.stderr.count("\n")) == (5, 1)


@pytest.mark.parametrize("graph", ["direct", "pleinair"])
def test_images_have_metadata_and_a_sidecar_gives_the_same_image_again(place: Path, graph: str) -> None:
    for seed in range(10):
        first = draw(f"things {seed}", graph=graph, seed=seed, overrides={"retrieval.k": 2})
        assert first.picture is not None and first.outcome.best is not None
        with Image.open(first.picture) as picture:
            chunk = json.loads(picture.text["pleinair"])  # type: ignore[attr-defined]
        sidecar = json.loads(first.sidecar.read_text(encoding="utf-8"))
        assert (chunk["run"], chunk["prompt"], chunk["seed"]) == (first.run_id, f"things {seed}", seed)
        used = first.outcome.best.request.references
        assert chunk["references"] == sidecar["references"] and len(used) == len(chunk["references"])
        assert all(credit["license"] == "CC0-1.0" and credit["source"] for credit in chunk["references"])
        again = redraw(first.sidecar, out=str(place / "again"))
        assert pixels(again.picture) == pixels(first.picture)
        assert again.run_id != first.run_id


@pytest.mark.slow
@pytest.mark.skipif(not TRAINED, reason="pocket models not trained yet")
def test_the_pocket_models_give_the_same_pixels_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    first = draw("a blue jay in the snow", seed=1, overrides={"budget.attempts": 2})
    replayed = replay(first.run_id, str(tmp_path / "replayed"))
    again = redraw(first.sidecar, out=str(tmp_path / "again"))
    branch = fork(first.run_id, "critique:1", out=str(tmp_path / "fork"))
    for other in (replayed, again, branch):
        assert pixels(other.picture) == pixels(first.picture)
        assert other.outcome.reason == first.outcome.reason
    assert attempts(first) == attempts(again) == attempts(branch)


def attempts(result: Result) -> list[str]:
    """Return the digests of all images of a run."""
    content = json.loads(result.sidecar.read_text(encoding="utf-8"))
    return [attempt["picture"]["sha256"] for attempt in content["attempts"]]


def test_a_file_that_is_no_sidecar_is_refused(result: Result, place: Path) -> None:
    content = json.loads(result.sidecar.read_text(encoding="utf-8"))
    for text in ("", "[]", "{}", json.dumps(content | {"order": {}})):
        (place / "record.json").write_text(text, encoding="utf-8")
        with pytest.raises(BadInput, match=r"record\.json: not a sidecar"):
            redraw(place / "record.json")
    (place / "record.json").write_text(json.dumps(content | {"format": 2}), encoding="utf-8")
    with pytest.raises(BadInput, match="its format is 2, this pleinair reads 1"):
        redraw(place / "record.json")


def test_the_sidecar_of_a_fork_is_refused_with_its_parent(result: Result) -> None:
    branch = fork(result.run_id, "critique:2", overrides=NEVER)
    with pytest.raises(BadInput, match=f"of a fork of run {result.run_id}"):
        redraw(branch.sidecar)
