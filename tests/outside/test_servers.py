"""Servers and workers as processes: what is killed goes on where it was, and nothing is executed twice."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import quick_engines as quick
from support.servers import Server, serving

from pleinair.app.api import run_table
from pleinair.app.runs.row import Run
from pleinair.app.runs.tables import OPEN

PROMPT = "first thing and second thing"
SOON = 300.0  # seconds that a test waits for what must come


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a home with quick backends, for this process and those that it starts."""
    for name, value in quick.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    return tmp_path


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


def test_a_stopped_server_releases_its_run_and_closes_its_streams(slow: Path) -> None:
    with serving() as server:
        run_id = server.post(PROMPT)
        stream = server.messages(run_id)
        next(stream)
        until(lambda: row(run_id).status == "running")
        server.process.terminate()
        assert all(message.get("event") != "ended" for message in stream)
        assert server.process.wait(SOON) in (0, -15)
    assert (row(run_id).status, row(run_id).deaths) == ("queued", 0)


def test_a_killed_worker_is_started_again(slow: Path) -> None:
    with serving() as server:
        run_id = server.post(PROMPT, seed=1)
        await_running(server, run_id)
        server.workers[0].kill()
        until(lambda: row(run_id).status == "accepted")
        assert row(run_id).deaths == 1
    assert images(slow)[0] == "picture 1 0"


def test_two_servers_at_one_home_execute_each_run_once(place: Path) -> None:
    with serving() as one, serving() as other:
        runs = [server.post(PROMPT, seed=seed) for seed in range(4) for server in (one, other)]
        until(lambda: not any(row(run_id).status in OPEN for run_id in runs))
        assert {row(run_id).status for run_id in runs} == {"accepted"}
    assert images(place) == sorted(f"picture {seed} {n}" for seed in range(4) for _ in "ab" for n in (0, 1))


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
