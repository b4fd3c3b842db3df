"""Programs whose runs workers execute, by the setting `cluster.workers`; on one machine, with SQLite."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pleinair.app import api
from pleinair.app.api import draw, finish, home, run_table, submit
from pleinair.app.runs.events import Event, read
from pleinair.app.runs.lease import Released
from pleinair.app.runs.worker import work
from pleinair.tools.types import BadInput


@pytest.fixture(autouse=True)
def workers_setting(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Set `cluster.workers`; return the homes for which a worker of this machine was to be started."""
    woken: list[object] = []
    monkeypatch.setenv("PLEINAIR_CLUSTER__WORKERS", "true")
    monkeypatch.setattr("pleinair.app.runs.by_workers.ensure_worker", woken.append)
    return woken


@contextmanager
def worker() -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(run_table(), home(), stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_worker_executes_what_a_program_draws(workers_setting: list[object]) -> None:
    events: list[Event] = []
    with worker():
        result = draw("two things", seed=1, on_event=events.append)
    assert result.outcome.ending == "accepted" and result.picture and result.picture.exists()
    assert events == read(home().events(result.run_id))
    assert workers_setting == [home()]
    assert run_table().get(result.run_id).client


def test_the_images_of_one_request_wait_in_the_queue_together() -> None:
    runs = api.submit_images("two things", num_images=3, seed=1)
    assert [run.id for run in run_table().queue()] == [run.id for run in runs]


def test_a_program_that_stops_waiting_leaves_the_run_to_the_workers() -> None:
    run, stop = submit("two things", seed=1), threading.Event()
    stop.set()
    with pytest.raises(Released):
        finish(run, stop=stop)
    assert [waiting.id for waiting in run_table().queue()] == [run.id]


def test_a_run_that_no_worker_has_begun_is_cancelled_at_once() -> None:
    run = submit("two things", seed=1)
    assert api.cancel(run.id).status == "cancelled"


def test_a_failed_run_is_resumed_by_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    run = submit("two things", seed=1, overrides={"generator.fault": "no memory"})
    with worker():
        assert finish(run).outcome.ending == "failed"
        assert api.resume(run.id).outcome.ending == "failed"
    numbers = [event.seq for event in read(home().events(run.id))]
    kinds = [event.kind for event in read(home().events(run.id))]
    assert numbers == list(range(len(numbers))) and (kinds.count("ended"), kinds.count("resumed")) == (2, 1)


def test_parts_of_a_program_are_executed_in_it() -> None:
    from support.quick_engines import Stripes

    result = draw("two things", seed=1, generator=Stripes())
    assert result.outcome.ending == "accepted"
    assert run_table().get(result.run_id).client is None


def test_a_request_cannot_choose_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_CLUSTER__WORKERS", "false")
    with pytest.raises(BadInput, match="cluster.workers = True"):
        submit("two things", overrides={"cluster.workers": True})
