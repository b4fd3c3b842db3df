"""Workers: they take the queued runs of clients in turn, and go on after the death of another worker."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pleinair.app.api import home, run_table, submit
from pleinair.app.runs.owner import new_owner
from pleinair.app.runs.queue import QueueFull
from pleinair.app.runs.request import read_request
from pleinair.app.runs.row import Run
from pleinair.app.runs.runner import MOST_DEATHS
from pleinair.app.runs.worker import work
from pleinair.tools.types import Outcome

PROMPT = "a hoopoe in the snow"
FEW = {"budget.attempts": 1}


def queued(*clients: str, most: int | None = None) -> list[Run]:
    """Queue a run for each client, in this order."""
    request = read_request(submit(PROMPT, graph="direct", overrides=FEW).request_json)
    return [run_table().add_group(request.rows(), client=client, most=most)[0] for client in clients]


def work_off(idle: float = 0.2) -> None:
    work(run_table(), home(), threading.Event(), idle)


def test_clients_take_turns(place: Path) -> None:
    runs = queued("a", "a", "a", "b", "c", "b")
    order = [runs.index(run) for run in run_table().queue()]
    assert order == [0, 3, 4, 1, 5, 2]


def test_a_run_at_work_counts_for_its_client(place: Path) -> None:
    first, second, other = queued("a", "a", "b")
    run_table().claim(first.id, new_owner())
    assert [run.id for run in run_table().queue()] == [other.id, second.id]


def test_a_client_that_was_served_is_behind_those_who_wait(place: Path) -> None:
    first, second, third, other = queued("a", "a", "a", "b")
    fence = run_table().claim(first.id, new_owner())
    run_table().commit(first.id, fence, Outcome(ending="unchecked", reason=""))
    (late,) = queued("c")
    order = [other.id, second.id, late.id, third.id]
    assert [run.id for run in run_table().queue()] == order


def test_a_full_queue_takes_no_more(place: Path) -> None:
    queued("a", "b", most=2)
    with pytest.raises(QueueFull):
        queued("c", most=2)
    assert len(run_table().queue()) == 2


def test_a_worker_executes_the_queue(place: Path) -> None:
    runs = queued("a", "b")
    work_off()
    assert [run_table().get(run.id).status for run in runs] == ["unchecked"] * 2


def test_runs_of_the_terminal_are_not_taken(place: Path) -> None:
    run = submit(PROMPT, graph="direct", overrides=FEW)
    work_off()
    assert run_table().get(run.id).status == "queued"


WORKER = """
import sys, threading
from pleinair.app.api import home, run_table
from pleinair.app.runs.worker import work
print("ready", flush=True)
work(run_table(), home(), threading.Event())
"""


def test_a_killed_worker_loses_nothing(place: Path) -> None:
    (run,) = queued("a")
    process = subprocess.Popen([sys.executable, "-c", WORKER], env=os.environ, stdout=subprocess.PIPE)
    try:
        while run_table().get(run.id).status == "queued":
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    work_off()
    row = run_table().get(run.id)
    assert (row.status, row.deaths) == ("unchecked", 1)


def test_a_run_that_kills_its_workers_is_given_up(place: Path) -> None:
    (run,) = queued("a")
    dead = new_owner().model_copy(update={"started": "0"})
    for _ in range(MOST_DEATHS):
        run_table().claim(run.id, dead)
    work_off()
    row = run_table().get(run.id)
    assert row.outcome and row.status == "failed"
    assert "its process died 3 times" in row.outcome.reason


def test_a_stopped_worker_releases_its_run_without_a_death(place: Path) -> None:
    (run,) = queued("a")
    stop = threading.Event()
    work(run_table(), home(), stop, tell=stop.set)
    assert (run_table().get(run.id).status, run_table().get(run.id).deaths) == ("queued", 0)
    work_off()
    assert run_table().get(run.id).status == "unchecked"


def test_a_request_that_cannot_be_read_fails_and_the_queue_goes_on(place: Path) -> None:
    request = read_request(submit(PROMPT, graph="direct", overrides=FEW).request_json)
    odd = run_table().add_group([('{"prompt": "of a newer version"}', 1)], client="a")[0]
    (other,) = run_table().add_group(request.rows(), client="a")
    work_off(idle=1.0)
    assert [run_table().get(run.id).status for run in (odd, other)] == ["failed", "unchecked"]
    outcome = run_table().get(odd.id).outcome
    assert outcome and "incompatible version" in outcome.reason


def test_a_run_whose_folder_cannot_be_written_waits_and_the_queue_goes_on(place: Path) -> None:
    full, other = queued("a", "b")
    home().events_file(full.id).mkdir(parents=True)  # where its log belongs
    work_off(idle=1.0)
    assert [run_table().get(run.id).status for run in (full, other)] == ["queued", "unchecked"]
    home().events_file(full.id).rmdir()
    work_off()
    assert run_table().get(full.id).status == "unchecked"
