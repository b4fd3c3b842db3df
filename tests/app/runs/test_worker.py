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
from pleinair.app.runs.request import read_request
from pleinair.app.runs.runner import MOST_DEATHS
from pleinair.app.runs.store import QueueFull, Run
from pleinair.app.runs.worker import work

PROMPT = "a saverel wren in the snow"
FEW = {"budget.attempts": 1}


def queued(*clients: str, most: int | None = None) -> list[Run]:
    """Queue a run for each client, in this order."""
    request = read_request(submit(PROMPT, graph="direct", overrides=FEW).request_json)
    return [run_table().add_group(request.rows(), client=client, most=most)[0] for client in clients]


def work_off() -> None:
    work(run_table(), home(), threading.Event(), idle=0.2)


def test_clients_take_turns(place: Path) -> None:
    runs = queued("a", "a", "a", "b", "c", "b")
    order = [runs.index(run) for run in run_table().queue()]
    assert order == [0, 3, 4, 1, 5, 2]


def test_a_run_at_work_counts_for_its_client(place: Path) -> None:
    first, second, other = queued("a", "a", "b")
    run_table().claim(first.id, new_owner())
    assert [run.id for run in run_table().queue()] == [other.id, second.id]


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
