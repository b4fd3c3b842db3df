"""Stopping a run from outside, and going on with it: signals, and what the commands for runs say then."""

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
from pleinair.app.runs.store import new_owner

SLOW = ("--set", "generator.pause=0.4", "--seed", "7")


def call(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def signalled(kind: signal.Signals, twice: bool, words: Sequence[str] = SLOW) -> tuple[int, str, str]:
    """Send a signal to a real drawing after its draft; give its exit code and what it said."""
    command = [sys.executable, "-m", "pleinair.app.cli.main", "draw", "two things", "--json", *words]
    with subprocess.Popen(
        command, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None and process.stdout is not None
        said = until("missing", process.stderr)
        process.send_signal(kind)
        if twice:
            said += until("once more", process.stderr)
            process.send_signal(kind)
        said += process.stderr.read()
        answer = process.stdout.read()
    return process.returncode, said, answer


def until(word: str, lines: Any) -> str:
    said = ""
    for line in lines:
        said += line
        if word in line:
            break
    return said


def drawn(outcome: Any) -> list[Any]:
    """Give what must not depend on an interruption."""
    return [outcome.ending, outcome.reason, outcome.best.picture, outcome.best.number]


def test_stopped_at_once_it_goes_on_as_it_says(place: Path) -> None:
    code, said, answer = signalled(signal.SIGINT, twice=True)
    run = run_table().newest(1)[0]
    assert (code, answer, run.status) == (130, "", "waiting")
    assert f"`pleinair runs resume {run.id}`" in said and "Traceback" not in said
    assert call("runs", "list").stdout.split()[1] == "interrupted"
    assert f"`pleinair runs resume {run.id}`" in call("runs", "show", "last").stdout
    assert call("runs", "resume", "last").exit_code == 0
    outcome = run_table().get(run.id).outcome
    assert drawn(outcome) == drawn(draw("two things", seed=7).outcome)


def test_sigterm_stops_it_like_ctrl_c(place: Path) -> None:
    code, said, answer = signalled(signal.SIGTERM, twice=False)
    told = json.loads(answer)
    assert (code, told["ending"]) == (130, "cancelled"), said
    assert Path(told["picture"]).exists()


def test_a_killed_run_is_told_from_one_that_is_worked_on(place: Path) -> None:
    run = submit("two things")
    assert call("runs", "list").stdout.split()[1] == "waiting"
    owner = new_owner()
    run_table().claim(run.id, owner)
    assert call("runs", "list").stdout.split()[1] == "running"
    run_table().claim(submit("x").id, owner.model_copy(update={"started": "before"}))
    listed = call("runs", "list")
    assert [line.split()[1] for line in listed.stdout.splitlines()] == ["interrupted", "running"]
    assert "`pleinair runs resume RUN`" in listed.stderr
    rows = json.loads(call("runs", "list", "--json").stdout)
    assert [(row["status"], row["interrupted"]) for row in rows] == [("running", True), ("running", False)]


def test_a_wish_to_stop_holds_while_somebody_works_on_the_run(place: Path) -> None:
    seen = list[str]()

    def other_process(event: Any) -> None:
        if event.step == "draft" and not seen:
            seen.append(cancel(run.id).status)
            with pytest.raises(Exception, match="is being worked on"):
                resume(run.id)

    run = submit("two things")
    assert resume(run.id, other_process).outcome.ending == "cancelled"
    assert seen == ["running"]


def test_resuming_what_has_ended_says_how_to_branch_off(place: Path) -> None:
    run = submit("two things")
    cancel(run.id)
    done = call("runs", "resume", run.id)
    assert done.exit_code == 130
    assert re.search(rf"{run.id} has ended: cancelled; `pleinair trace fork {run.id} --at STEP`", done.stderr)
