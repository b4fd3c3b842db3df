"""Detached workers: one for a home, which outlives the program that queued the runs."""

import fcntl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.detached_workers import detached_workers, detached_workers_ended

from pleinair.app.api import enqueue, home, run_table
from pleinair.app.runs import detached, worker
from pleinair.app.runs.detached import ensure_worker, work_until_idle
from pleinair.app.runs.presence import lock_file
from pleinair.app.streams import follow

PROMPT = "first thing and second thing"
CLIENT = f"""
import os, signal
from pleinair.app.streams import start
print(start({PROMPT!r}, seed=1)[0].id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
SOON = 300.0  # seconds that a test waits for what must come


@pytest.fixture
def ending(place: Path) -> Iterator[Path]:
    """End the workers of a test, by id."""
    with detached_workers_ended():
        yield place


@pytest.mark.slow
def test_a_run_goes_on_without_the_program_that_queued_it(ending: Path) -> None:
    client = subprocess.run([sys.executable, "-c", CLIENT], stdout=subprocess.PIPE, text=True)
    run_id = client.stdout.strip()
    *_, last = follow(run_id, seconds=SOON)
    assert (client.returncode, last.kind) == (-9, "ended")
    (worker,) = detached_workers()
    worker.kill()
    worker.wait(SOON)
    second = enqueue(PROMPT, client="a", seed=2)[0].id
    ensure_worker(home())
    *_, last = follow(second, seconds=SOON)
    assert last.kind == "ended"
    (worker,) = detached_workers()
    worker.terminate()
    worker.wait(SOON)


def test_a_home_gets_one_worker(ending: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        started = [pid for pid in threads.map(lambda _: ensure_worker(home()), range(8)) if pid]
    assert started == [worker.pid for worker in detached_workers()]
    assert ensure_worker(home()) is None


def test_a_run_queued_while_its_worker_ends_is_executed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[str] = []

    def work(*arguments: Any) -> None:
        real_work(*arguments)
        if not late:  # after the last look
            late.append(enqueue(PROMPT, client="a", seed=1)[0].id)
            assert ensure_worker(home()) is None

    real_work = worker.work
    monkeypatch.setattr(worker, "work", work)
    monkeypatch.setattr(detached, "IDLE", 0.01)
    lock_file(home()).parent.mkdir(parents=True, exist_ok=True)
    with lock_file(home()).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        work_until_idle(file.fileno(), threading.Event())
        assert run_table().get(late[0]).status == "accepted"
        with lock_file(home()).open("ab") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it is absent now
