"""Runs as iterators of events and in event loops."""

import asyncio
import threading
from contextlib import aclosing
from pathlib import Path

import pytest

from pleinair.app.api import answer, home, run_table, submit
from pleinair.app.runs.events import Event, read
from pleinair.app.streams import _Work, adraw, afollow, astream, execute, follow, stream
from pleinair.tools.types import BadInput

PROMPT = "first thing and second thing"


def test_a_stream_has_all_events_of_a_run(place: Path) -> None:
    events = list(stream(PROMPT, seed=1))
    run = run_table().newest(1)[0]
    assert events == read(home().events(run.id)) == list(execute(run)) == list(follow(run.id))
    assert [event.kind for event in (events[0], events[-1])] == ["started", "ended"]
    assert list(follow(run.id, after=events[3].seq)) == events[4:]


def test_an_asynchronous_stream_has_all_events_of_a_run(place: Path) -> None:
    async def collect() -> list[Event]:
        return [event async for event in astream(PROMPT, seed=1)]

    async def follow_again(run_id: str) -> list[Event]:
        return [event async for event in afollow(run_id)]

    events = asyncio.run(collect())
    run = run_table().newest(1)[0]
    assert events == read(home().events(run.id)) == asyncio.run(follow_again(run.id))


def test_a_bad_request_is_refused_at_once(place: Path) -> None:
    with pytest.raises(BadInput):
        stream(PROMPT, graph="unknown")
    assert not run_table().newest(1)


def test_a_closed_stream_cancels_its_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_GENERATOR__PAUSE", "0.2")
    events = stream(PROMPT, seed=1)
    next(event for event in events if event.kind == "step_started")
    events.close()
    (run,) = run_table().newest(1)
    assert run.status == "cancelled"
    assert not any(thread.name == f"run {run.id}" for thread in threading.enumerate())


def test_a_closed_asynchronous_stream_has_cancelled_its_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLEINAIR_GENERATOR__PAUSE", "0.2")

    async def close() -> str:
        async with aclosing(astream(PROMPT, seed=1)) as events:
            async for event in events:
                if event.kind == "step_started":
                    break
        return run_table().newest(1)[0].status

    assert asyncio.run(close()) == "cancelled"


def test_a_cancelled_task_cancels_its_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_GENERATOR__PAUSE", "0.2")

    async def cancel(asynchronous: bool) -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def read_stream() -> None:
            async for _ in astream(PROMPT, seed=1):
                begun.set()

        def tell(_: Event) -> None:
            loop.call_soon_threadsafe(begun.set)

        task = asyncio.create_task(read_stream() if asynchronous else adraw(PROMPT, seed=1, on_event=tell))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for asynchronous in (True, False):
        asyncio.run(cancel(asynchronous))
        (run,) = run_table().newest(1)
        assert run.status == "cancelled"


def test_a_stream_ends_where_the_run_waits(place: Path) -> None:
    *_, last = stream(PROMPT, seed=1, overrides={"approve": "references"})
    (run,) = run_table().newest(1)
    assert (last.kind, run.status) == ("asked", "waiting")
    *_, last = execute(answer(run.id))
    assert last.kind == "ended"


def test_a_run_of_another_holder_is_followed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLEINAIR_GENERATOR__PAUSE", "0.1")
    run = submit(PROMPT, seed=1)
    first = execute(run)
    begun = next(first)
    second = [event for event in execute(run)]
    assert [begun, *first] == second


def test_a_run_that_waits_is_not_cancelled_while_its_thread_ends(place: Path) -> None:
    ended, may_end = threading.Event(), threading.Event()

    def end() -> None:
        ended.set()
        may_end.wait(300)

    run = submit(PROMPT, seed=1, overrides={"approve": "references"})
    work = _Work(run, lambda event: None, None, end, {})
    assert ended.wait(300)
    work.cancel()
    may_end.set()
    work.thread.join()
    assert (run_table().get(run.id).status, run_table().get(run.id).cancel_requested) == ("waiting", 0)
