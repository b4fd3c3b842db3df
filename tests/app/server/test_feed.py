"""Feeds of runs: each version rendered once for all viewers, nothing sent twice, the end always sent."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from pleinair.app.api import answer, cancel, enqueue, home, run_table
from pleinair.app.runs.events import EventLog, Progress
from pleinair.app.runs.worker import work
from pleinair.app.server.feed import are_final, changes, messages
from pleinair.app.server.site import Options, Site

PROMPT = "first thing and second thing"
SOON = 300.0  # seconds that a test waits for what must come


@pytest.fixture
def site(place: Path) -> Site:
    return Site(Options(workers=0), home())


def queued(**options: Any) -> str:
    return enqueue(PROMPT, client="a", **options)[0].id


def write(run_id: str, text: str) -> None:
    """Write an event, as the process of the run does."""
    log = EventLog(home().events(run_id))
    log.write(Progress(text=text), "draft")
    log.close()


def work_off() -> None:
    work(run_table(), home(), threading.Event(), idle=0.2)


def awaited(test: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(test, SOON))


async def in_thread(call: Callable[[], Any]) -> None:
    await asyncio.to_thread(call)


def test_the_present_version_comes_at_once_and_the_others_when_they_are_there(site: Site) -> None:
    run_id = queued()

    async def follow() -> None:
        async with aclosing(changes(site, [run_id])) as versions:
            first = await anext(versions)
            again = asyncio.ensure_future(anext(versions))
            assert not (await asyncio.wait([again], timeout=0.3))[0]
            await in_thread(lambda: write(run_id, "a"))
            assert (await again)[run_id] != first[run_id]

    awaited(follow())


def test_a_slow_reader_gets_only_the_newest_version(site: Site) -> None:
    run_id = queued()

    async def follow() -> None:
        async with aclosing(changes(site, [run_id])) as versions:
            await anext(versions)
            for number in range(20):
                await in_thread(lambda number=number: write(run_id, str(number)))  # type: ignore[misc]
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)
            assert (await anext(versions))[run_id] == site.versions([run_id])[run_id]
            more = asyncio.ensure_future(anext(versions))
            assert not (await asyncio.wait([more], timeout=0.3))[0]
            more.cancel()
            await asyncio.wait([more])

    awaited(follow())


def test_each_version_is_rendered_once_for_all_viewers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, render = queued(), Site.rendered
    rendered: list[str] = []

    def count(site: Site, run_id: str) -> str:
        rendered.append(run_id)
        return render(site, run_id)

    monkeypatch.setattr(Site, "rendered", count)
    received: list[list[str]] = [[] for _ in range(50)]

    async def view(number: int) -> None:
        async for message in messages(site, run_id, ""):
            received[number].append(str(message.data))

    async def follow() -> None:
        await asyncio.gather(*map(view, range(50)), in_thread(work_off))

    awaited(follow())
    assert len(rendered) >= 3
    assert max(map(len, received)) <= len(rendered) + 1  # with the message of the end
    assert {tuple(texts)[-2:] for texts in received} == {tuple(received[0])[-2:]}
    assert site.watcher.version(run_id) is None  # nothing is held without viewers


def test_nothing_is_sent_that_the_client_has(site: Site) -> None:
    run_id = queued(graph="direct")
    work_off()

    async def received(last: str) -> list[Any]:
        return [message async for message in messages(site, run_id, last)]

    first, end = awaited(received(""))
    assert end.event == "ended"
    assert [message.event for message in awaited(received(first.id))] == ["ended"]
    assert len(awaited(received("an older one"))) == 2


def test_the_feed_stays_open_while_the_run_waits_for_an_approval(site: Site) -> None:
    run_id = queued(overrides={"approve": "references"})

    def approve() -> None:
        work_off()
        assert run_table().get(run_id).status == "waiting"
        answer(run_id)
        work_off()

    async def follow() -> list[Any]:
        task = asyncio.ensure_future(in_thread(approve))
        all_messages = [message async for message in messages(site, run_id, "")]
        await task
        return all_messages

    *_, newest, end = awaited(follow())
    assert end.event == "ended"
    assert "accepted" in newest.data
    assert are_final(site.versions([run_id]))


def delete(run_id: str) -> None:
    db = sqlite3.connect(home().table_file)
    db.execute("DELETE FROM runs WHERE id=?", (run_id,))
    db.commit()
    db.close()


@pytest.mark.parametrize("end", [delete, cancel])
def test_the_end_of_a_run_that_no_worker_took_is_sent(site: Site, end: Callable[[str], Any]) -> None:
    run_id = queued()

    async def follow() -> list[Any]:
        all_messages = []
        async for message in messages(site, run_id, ""):
            all_messages.append(message)
            if len(all_messages) == 1:
                await in_thread(lambda: end(run_id))
        return all_messages

    *_, newest, last = awaited(follow())
    assert last.event == "ended"
    assert ("deleted" if end is delete else "cancelled") in newest.data


def test_the_place_in_the_queue_is_shown_as_it_changes(site: Site) -> None:
    first, second = queued(graph="direct"), queued(graph="direct")

    async def follow() -> list[str]:
        stream = messages(site, second, "")
        texts = [str((await anext(stream)).data)]
        await in_thread(lambda: cancel(first))
        texts.append(str((await anext(stream)).data))
        await stream.aclose()
        return texts

    before, after = awaited(follow())
    assert "1 before it" in before
    assert "Next in the queue" in after
