"""A server that is killed in the middle of a run: the next one goes on, and what was accepted is executed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.servers import Server, serving

from pleinair.app.api import run_table
from pleinair.app.runs.store import Run

PROMPT = "first thing and second thing"
SOON = 30.0  # seconds that a test waits for what must come


@pytest.fixture
def slow(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an image take a second, so that a process can be killed meanwhile."""
    monkeypatch.setenv("PLEINAIR_GENERATOR__PAUSE", "0.3")
    return place


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def row(run_id: str) -> Run:
    return run_table().get(run_id)


def await_running(server: Server, run_id: str) -> str:
    """Read the feed until the run has an image, and return the id of that message."""
    return next(message["id"] for message in server.messages(run_id) if "<img" in message["data"])


def images(place: Path) -> list[str]:
    """Return the generated images, by seed and number of references."""
    lines = (place / "effects.log").read_text(encoding="utf-8").splitlines()
    return sorted(line for line in lines if line.startswith("picture"))


@pytest.mark.slow
def test_a_killed_server_loses_nothing(slow: Path) -> None:
    with serving() as server:
        run_id = server.post(PROMPT, seed=1)
        last = await_running(server, run_id)
        (worker,) = server.workers
        later = server.post(PROMPT, seed=2)
        server.kill()
    psutil.wait_procs([worker], timeout=SOON)
    assert not worker.is_running()
    assert [run.status for run in map(row, (run_id, later))] == ["queued", "queued"]
    with serving() as server:
        *_, newest, end = server.messages(run_id, last)
        assert end["event"] == "ended"
        assert "accepted" in newest["data"]
        until(lambda: row(later).status == "accepted")
    assert [run.deaths for run in map(row, (run_id, later))] == [0, 0]
    assert images(slow) == ["picture 1 0", "picture 1 1", "picture 2 0", "picture 2 1"]
