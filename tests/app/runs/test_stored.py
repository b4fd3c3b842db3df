"""Runs of earlier versions: listed, shown, exported, replayed, resumed and forked.

`data/home-FORMAT.zip` is a home of that version: runs with several endings, a waiting run, and one whose
process died. Its folders were below `/tmp/stored`.
"""

import json
import sqlite3
import zipfile
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pleinair.app.api import find, resume, run_table
from pleinair.app.cli.main import app
from pleinair.app.runs.row import Run
from pleinair.app.trace.fork import fork
from pleinair.app.trace.replay import replay

HOMES = sorted(Path(__file__).with_name("data").glob("home-*.zip"))
ORIGIN = "/tmp/stored"
STATUSES = {
    "home-0.1": ["accepted", "cancelled", "failed", "queued", "queued", "stopped", "unchecked"],
    "home-0.1-unchecked": ["accepted"] * 3
    + ["cancelled", "failed", "queued", "running", "stopped"]
    + ["unchecked"] * 3,
}


@pytest.fixture(params=HOMES, ids=lambda path: path.stem)
def stored(request: pytest.FixtureRequest, place: Path) -> Path:
    """Unpack a stored home and change its paths to this folder."""
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(place)
    with closing(sqlite3.connect(place / "home" / "runs.sqlite")) as db, db:
        db.execute("UPDATE runs SET order_json = replace(order_json, ?, ?)", (ORIGIN, str(place)))
    return place


def call(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def find_by_prompt(prompt: str, status: str = "") -> Run:
    """Find a run by its prompt and status."""
    runs = run_table().newest(99)
    return next(
        run for run in runs if json.loads(run.request_json)["prompt"] == prompt and status in run.status
    )


def test_there_is_a_stored_home() -> None:
    assert HOMES


def test_every_run_is_listed(stored: Path, request: pytest.FixtureRequest) -> None:
    listed = json.loads(call("runs", "list", "--json").stdout)
    assert sorted(row["status"] for row in listed) == STATUSES[request.node.callspec.id]


def test_every_run_is_shown_and_exported(stored: Path) -> None:
    for run in run_table().newest(99):
        assert json.loads(call("runs", "show", run.id, "--json").stdout)["status"] == run.status
        begun = json.loads(run.request_json)["prompt"] != "waiting things"
        for words in (("show", run.id), ("export", run.id, "a.html"), ("export", run.id, "a.png")):
            done = call("trace", *words)
            assert done.exit_code == (0 if begun else 2), done.output


def test_an_accepted_run_is_replayed(stored: Path) -> None:
    result = replay(find_by_prompt("two things", "accepted").id, str(stored / "again"))
    assert result.picture is not None and result.outcome.best is not None
    image = next((stored / "again").glob("*attempt-1.png")).read_bytes()
    assert sha256(image).hexdigest() == result.outcome.best.picture.sha256


def test_endings_that_were_sentences_are_fields(stored: Path) -> None:
    runs = [run for run in run_table().newest(99) if run.status in ("stopped", "unchecked")]
    assert {run.status for run in runs} == {"stopped", "unchecked"}
    for run in runs:
        facts = json.loads(call("runs", "show", run.id, "--json").stdout)
        assert facts["limit"] == ("attempts" if run.status == "stopped" else None)
        assert ("the limit on attempts is reached" in facts["reason"]) == (run.status == "stopped")
        assert f"{run.status}: {facts['reason']}" in call("trace", "show", run.id).stdout
        answer = json.loads(call("trace", "replay", run.id, "--out", str(stored / run.id), "--json").stdout)
        assert (answer["ending"], answer["limit"]) == (run.status, facts["limit"])
        assert resume(run.id).outcome.ending == run.status
        assert call("runs", "resume", run.id).exit_code == (3 if run.status == "stopped" else 0)


def test_a_waiting_run_and_a_dead_one_are_resumed(stored: Path) -> None:
    assert resume(find_by_prompt("waiting things").id).outcome.ending == "accepted"
    dead = find_by_prompt("broken things")
    log = stored / "effects.log"
    assert resume(dead.id).outcome.limit == "attempts"
    assert find(dead.id).status == "stopped"
    assert log.read_text(encoding="utf-8").count("question\n") < 4 + 3  # decompose and a critique are done


def test_a_stored_run_is_forked(stored: Path) -> None:
    parent = find_by_prompt("two things", "accepted")
    branch = fork(parent.id, "critique:2", overrides={"mllm.satisfied": False})
    assert branch.outcome.ending == "stopped"
    assert call("trace", "diff", parent.id, branch.run_id).exit_code == 1
