"""Runs as iterators of their events, in event loops, and by a worker that outlives the program."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from typing_extensions import Unpack

from pleinair.app import api
from pleinair.app.parts import OwnParts, split_parts
from pleinair.app.runs import follow as following
from pleinair.app.runs.detached import ensure_worker
from pleinair.app.runs.events import Event, OnEvent
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Busy
from pleinair.app.runs.tables import OPEN
from pleinair.app.settings import OnPreview
from pleinair.tools.types import PleinairError

if TYPE_CHECKING:
    from pleinair.app.runs.results import Result

LOCAL = "local"  # client of runs that programs of this machine queue


def start(
    prompt: str, *, num_images: int | None = 1, client: str = LOCAL, **options: Unpack[api.DrawOptions]
) -> list[Run]:
    """Queue the runs of a request and return their rows at once; a worker executes them.

    One is started where the home has none. It goes on when this program ends, and ends itself after ten
    minutes without a queued run. Arguments and errors as of `api.draw`; runs of different clients take turns.
    """
    runs = api.enqueue(prompt, client=client, num_images=num_images, **options)
    ensure_worker(api.home())
    return runs


def follow(run_id: str, *, after: int = -1, seconds: float | None = None) -> Iterator[Event]:
    """Yield the events of a run, whichever process executes it, until it ends or waits for an approval.

    Args:
        run_id: of the run.
        after: `seq` of the last event that is not wanted; -1: all are.
        seconds: after which the iterator ends; None: any time.

    Raises:
        NotFound: there is no such run, or it has been deleted meanwhile.
    """
    return following.follow(api.run_table(), api.home(), run_id, after=after, seconds=seconds)


def afollow(run_id: str, *, after: int = -1, seconds: float | None = None) -> AsyncIterator[Event]:
    """Yield the events of a run as `follow` does, in an event loop."""
    return following.afollow(api.run_table(), api.home(), run_id, after=after, seconds=seconds)


def stream(
    prompt: str, *, on_preview: OnPreview | None = None, **options: Unpack[api.DrawOptions]
) -> Generator[Event]:
    """Validate a request at once, then execute it while its events are read.

    Arguments and errors as of `api.draw`. The last event has the kind "ended", or "asked" where the run waits
    for an approval. A closed iterator cancels the run, which keeps its best image.
    """
    return execute(api.submit(prompt, **options), on_preview, **split_parts(options))


def execute(run: Run, on_preview: OnPreview | None = None, **parts: Unpack[OwnParts]) -> Generator[Event]:
    """Execute a run, or what is left of it, in a thread and yield its events, as `stream` does.

    Those of a run that another process works on are followed. Parts as of `api.finish`.
    """
    if run.status not in OPEN:
        yield from follow(run.id)
        return
    events: SimpleQueue[Event | None] = SimpleQueue()
    work = _Work(run, events.put, on_preview, lambda: events.put(None), parts)
    try:
        while (event := events.get()) is not None:
            yield event
        work.check()
    finally:
        work.cancel()
        work.thread.join()
    if work.is_elsewhere:
        yield from follow(run.id)


async def astream(
    prompt: str, *, on_preview: OnPreview | None = None, **options: Unpack[api.DrawOptions]
) -> AsyncGenerator[Event]:
    """Execute a request and yield its events as `stream` does; a cancelled task cancels the run."""
    run = await asyncio.to_thread(api.submit, prompt, **options)
    async with aclosing(aexecute(run, on_preview, **split_parts(options))) as events:
        async for event in events:
            yield event


async def aexecute(
    run: Run, on_preview: OnPreview | None = None, **parts: Unpack[OwnParts]
) -> AsyncGenerator[Event]:
    """Execute a run and yield its events as `execute` does, in an event loop."""
    if run.status not in OPEN:
        async for logged in afollow(run.id):
            yield logged
        return
    loop, events = asyncio.get_running_loop(), asyncio.Queue[Event | None]()

    def put(event: Event | None) -> None:
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(events.put_nowait, event)

    work = _Work(run, put, on_preview, lambda: put(None), parts)
    try:
        while (event := await events.get()) is not None:
            yield event
        work.check()
    finally:
        work.cancel()
        await asyncio.shield(asyncio.to_thread(work.thread.join))
    if work.is_elsewhere:
        async for logged in afollow(run.id):
            yield logged


async def adraw(
    prompt: str,
    *,
    on_event: OnEvent | None = None,
    on_preview: OnPreview | None = None,
    **options: Unpack[api.DrawOptions],
) -> Result:
    """Generate an image as `api.draw` does, in an event loop; a cancelled task cancels the run."""
    run = await asyncio.to_thread(api.submit, prompt, **options)
    return await afinish(run, on_event, on_preview, **split_parts(options))


async def afinish(
    run: Run,
    on_event: OnEvent | None = None,
    on_preview: OnPreview | None = None,
    **parts: Unpack[OwnParts],
) -> Result:
    """Work on a run until it ends, as `api.finish` does; a cancelled task cancels the run."""
    work = asyncio.ensure_future(asyncio.to_thread(api.finish, run, on_event, on_preview, **parts))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.to_thread(api.run_table().request_cancel, run.id)
        with suppress(PleinairError):
            await work
        raise


class _Work:
    """Thread that executes a run, hands over its events, and calls `at_end` after the last one."""

    def __init__(
        self,
        run: Run,
        on_event: OnEvent,
        on_preview: OnPreview | None,
        at_end: Callable[[], None],
        parts: OwnParts,
    ) -> None:
        self._run, self._on_event, self._on_preview, self._at_end = run, on_event, on_preview, at_end
        self._parts = parts
        self._error: BaseException | None = None
        self.is_elsewhere = False  # another process works on the run
        self._is_done = False  # before `at_end`, whose reader may be faster than the end of the thread
        self.thread = threading.Thread(target=self._execute, name=f"run {run.id}")
        self.thread.start()

    def check(self) -> None:
        """Raise what the run has raised."""
        if self._error:
            raise self._error

    def cancel(self) -> None:
        """Request the end of the run, unless the thread has done its work."""
        if not self._is_done:
            api.run_table().request_cancel(self._run.id)

    def _execute(self) -> None:
        try:
            api.finish(self._run, self._on_event, self._on_preview, **self._parts)
        except Busy:
            self.is_elsewhere = True
        except BaseException as error:
            self._error = error
        finally:
            self._is_done = True
            self._at_end()
