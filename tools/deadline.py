"""Deadline of a run: the seconds of its budget, against which everything counts that the run waits for.

It is a context variable, so that the threads of a run see their own. Outside of a run there is none, and
nothing here waits or raises. A generator (`worker.process`) or an encoder (`worker.encoder`) in its own
process is killed, also while its model loads.

Not covered: what blocks a thread of this process without checking, which cannot be killed: the file system,
while a library opens or an index is read (the deadline is checked between two files), and in-process
generators, encoders, chat models and retrievers of plug-ins. `finish_in_time` stops waiting for that thread,
a daemon, which does not keep a program from exiting.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotFinished
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Protocol, TypeVar

from pleinair.tools.types import PleinairError

T = TypeVar("T")

# seconds after the deadline until something is no longer waited for, from the innermost outwards
OVERTIME = 1.0  # a generator's process, which is killed then
STEP_WAIT = 1.5  # a step of a graph
RUN_WAIT = 2.0  # the thread of a run
_POLL = 0.25  # seconds between two checks while waiting for a lock
_ends: ContextVar[float] = ContextVar("ends", default=math.inf)  # in seconds of `time.monotonic`
_unfinished: list[threading.Thread] = []


class OutOfTime(PleinairError):
    """The seconds of the run's budget were used up within a step."""

    def __init__(self, message: str = "The run's seconds are used up.", remedy: str = "") -> None:
        super().__init__(message, remedy)


class _Lock(Protocol):
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Limit the block, and the threads that get a copy of its context, to `seconds` from now."""
    token = _ends.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ends.reset(token)


def seconds_left() -> float:
    """Return the seconds until the deadline, negative after it; infinity where there is none."""
    return _ends.get() - time.monotonic()


def check_deadline() -> None:
    """Raise `OutOfTime` after the deadline."""
    if seconds_left() <= 0:
        raise OutOfTime


@contextmanager
def holding(lock: _Lock) -> Iterator[None]:
    """Acquire a lock for the block; raise `OutOfTime` if the deadline comes first."""
    while not lock.acquire(timeout=_POLL):
        check_deadline()
    try:
        yield
    finally:
        lock.release()


def finish_in_time(work: Callable[[], T], wait: float) -> T:
    """Return what `work` returns, from a thread of its own; outside of a deadline from this one.

    Raises what `work` raises, and `OutOfTime` if it is still running `wait` seconds after the deadline: then
    something blocks its thread, which is left behind.
    """
    if seconds_left() == math.inf:
        return work()
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: B036  # raised in the caller's thread
            future.set_exception(error)

    thread = threading.Thread(target=copy_context().run, args=(run,), daemon=True, name="run")
    thread.start()
    try:
        return future.result(max(seconds_left() + wait, 0))
    except NotFinished:
        if future.done():
            raise
        _unfinished.append(thread)
        raise OutOfTime from None


def is_blocked() -> bool:
    """Return whether a thread that was left behind is still running."""
    return any(thread.is_alive() for thread in _unfinished)
