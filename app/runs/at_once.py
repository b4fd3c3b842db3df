"""Work on several devices at once: a thread for each, and the results in the order of what was asked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from time import monotonic
from typing import Generic, TypeVar

RELEASE = 3.0  # seconds that the work in progress has to end after Ctrl-C

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def results_of(
    items: Sequence[_Item],
    work: Callable[[_Item], _Result],
    threads: int,
    stop: threading.Event | None = None,
) -> Generator[_Result, None, None]:
    """Call `work` with each item, in so many threads at once; yield the results in the order of the items.

    With one thread that is the caller's. An error of an item begins no further one, and is raised after the
    results of those at work. Close the generator when it is left early (Ctrl-C): then `stop` is set, nothing
    further is begun, and the work in progress is awaited for a few seconds.
    """
    if min(threads, len(items)) <= 1:
        yield from map(work, items)
        return
    team = _Team(items, work)
    try:
        team.start(threads)
        yield from team.results()
    except BaseException:  # Ctrl-C, or the caller has closed this generator
        team.begin_no_more()
        if stop:
            stop.set()
        team.join(RELEASE)
        raise


class _Team(Generic[_Item, _Result]):
    """Threads that take one item after the other."""

    def __init__(self, items: Sequence[_Item], work: Callable[[_Item], _Result]) -> None:
        self._work, self._threads = work, list[threading.Thread]()
        self._futures = [Future[_Result]() for _ in items]
        self._waiting = deque(zip(items, self._futures, strict=True))

    def start(self, threads: int) -> None:
        """Start the threads: daemons, so that what blocks does not keep the program from exiting."""
        names = [f"runs {number}" for number in range(threads)]
        self._threads = [threading.Thread(target=self._run, daemon=True, name=name) for name in names]
        for thread in self._threads:
            thread.start()

    def begin_no_more(self) -> None:
        """Cancel the items that nobody has begun."""
        with suppress(IndexError):
            while True:
                self._waiting.popleft()[1].cancel()

    def join(self, seconds: float) -> None:
        """Wait until the threads have ended, but no longer than so many seconds."""
        until = monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - monotonic()))

    def results(self) -> Generator[_Result, None, None]:
        """Yield the results in order, then raise the first error."""
        for future in self._futures:
            if not _is_lost(future):
                yield future.result()
        for future in self._futures:
            if not future.cancelled() and (error := future.exception()):
                raise error

    def _run(self) -> None:
        with suppress(IndexError):
            while True:
                item, future = self._waiting.popleft()
                try:
                    future.set_result(self._work(item))
                except BaseException as error:  # noqa: B036  # raised in the caller's thread
                    self.begin_no_more()
                    future.set_exception(error)


def _is_lost(future: Future[_Result]) -> bool:
    """Wait for an item; return whether it was not begun, or has failed."""
    try:
        return future.exception() is not None
    except CancelledError:
        return True
