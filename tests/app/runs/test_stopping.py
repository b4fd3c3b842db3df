"""Stopping a run from outside and resuming it: signals, and what the `runs` commands print then."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pleinair.app.api import cancel, draw, resume, run_table, submit
from pleinair.app.cli.main import app
from pleinair.app.runs.owner import new_owner

SLOW = ("--set", "generator.pause=0.4", "--seed", "7")


def call(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def signalled(kind: signal.Signals, twice: bool, words: Sequence[str] = SLOW) -> tuple[int, str, str]:
    """Send a signal to a real run after its draft; return exit code, stderr and stdout."""
    command = [sys.executable, "-m", "pleinair.app.cli.main", "draw", "two things", "--json", *words]
    with subprocess.Popen(
        command, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None and process.stdout is not None
        stderr = until("missing", process.stderr)
        process.send_signal(kind)
        if twice:
            stderr += until("once more", process.stderr)
            process.send_signal(kind)
        stderr += process.stderr.read()
        answer = process.stdout.read()
    return process.returncode, stderr, answer


def until(word: str, lines: Any) -> str:
    stderr = ""
    for line in lines:
        stderr += line
        if word in line:
            break
    return stderr


def essence(outcome: Any) -> list[Any]:
    """Return what must not depend on an interruption."""
    return [outcome.ending, outcome.reason, outcome.best.picture, outcome.best.number]


def test_a_run_stopped_at_once_is_resumed_as_printed(place: Path) -> None:
    code, stderr, answer = signalled(signal.SIGINT, twice=True)
    run = run_table().newest(1)[0]
    assert (code, answer, run.status) == (130, "", "queued")
    assert f"`pleinair runs resume {run.id}`" in stderr and "Traceback" not in stderr
    assert call("runs", "list").stdout.split()[1] == "interrupted"
    assert f"`pleinair runs resume {run.id}`" in call("runs", "show", "last").stdout
    assert call("runs", "resume", "last").exit_code == 0
    outcome = run_table().get(run.id).outcome
    assert essence(outcome) == essence(draw("two things", seed=7).outcome)


def test_sigterm_stops_it_like_ctrl_c(place: Path) -> None:
    code, stderr, answer = signalled(signal.SIGTERM, twice=False)
    result = json.loads(answer)
    assert (code, result["ending"]) == (130, "cancelled"), stderr
    assert Path(result["picture"]).exists()


def test_a_killed_run_is_listed_as_interrupted(place: Path) -> None:
    run = submit("two things")
    assert call("runs", "list").stdout.split()[1] == "queued"
    owner = new_owner()
    run_table().claim(run.id, owner)
    assert call("runs", "list").stdout.split()[1] == "running"
    run_table().claim(submit("x").id, owner.model_copy(update={"started": "before"}))
    listed = call("runs", "list")
    assert [line.split()[1] for line in listed.stdout.splitlines()] == ["interrupted", "running"]
    assert "`pleinair runs resume RUN`" in listed.stderr
    rows = json.loads(call("runs", "list", "--json").stdout)
    assert [(row["status"], row["interrupted"]) for row in rows] == [("running", True), ("running", False)]


def test_a_cancellation_reaches_the_process_that_holds_the_run(place: Path) -> None:
    statuses = list[str]()

    def other_process(event: Any) -> None:
        if event.step == "draft" and not statuses:
            statuses.append(cancel(run.id).status)
            with pytest.raises(Exception, match="is being worked on"):
                resume(run.id)

    run = submit("two things")
    assert resume(run.id, other_process).outcome.ending == "cancelled"
    assert statuses == ["running"]


def test_resuming_an_ended_run_suggests_a_fork(place: Path) -> None:
    run = submit("two things")
    cancel(run.id)
    done = call("runs", "resume", run.id)
    assert done.exit_code == 130
    assert re.search(rf"{run.id} has ended: cancelled; `pleinair trace fork {run.id} --at STEP`", done.stderr)
