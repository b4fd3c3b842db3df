"""Connections whose every wait ends when the call ends, or as soon as the caller wants to stop."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import httpcore2

# Seconds left of the call; a request outside of one has ten minutes for each wait.
REMAINING: ContextVar[Callable[[], float]] = ContextVar("REMAINING", default=lambda: 600.0)
# Asked every second of a wait; what it raises ends the call.
STOPPED: ContextVar[Callable[[], None]] = ContextVar("STOPPED", default=lambda: None)
HEARING = 1.0  # seconds
PIECE = 64 * 1024  # bytes written before the clock is looked at again

Answer = TypeVar("Answer")


class Punctual(httpcore2.NetworkBackend):
    """Open connections whose every wait ends when the call ends."""

    def __init__(self) -> None:
        self._backend = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Look the name up and connect; a look-up knows no limit of its own, so a thread waits for it."""
        seconds = _left(timeout)
        connect = partial(self._backend.connect_tcp, host, port, seconds, local_address, socket_options)
        return PunctualStream(_within(seconds, connect))


class PunctualStream(httpcore2.NetworkStream):
    """Give every read, write and handshake what is left of the call."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, up to `max_bytes`; between two looks the caller may stop."""
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            rest = _left(None if ends is None else ends - time.monotonic())
            try:
                return self._stream.read(max_bytes, min(rest, HEARING))
            except httpcore2.ReadTimeout:
                if rest <= HEARING:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of `buffer`."""
        for start in range(0, len(buffer), PIECE):
            self._stream.write(buffer[start : start + PIECE], _left(timeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Agree on encryption."""
        safe = self._stream.start_tls(ssl_context, server_hostname, _left(timeout))
        return PunctualStream(safe)

    def get_extra_info(self, info: str) -> Any:
        """Tell what is known of the connection."""
        return self._stream.get_extra_info(info)


def _left(timeout: float | None) -> float:
    """Give the seconds that a wait may take; raises a timeout when there are none, or what stops the call."""
    STOPPED.get()()
    rest = REMAINING.get()()
    if rest <= 0:
        raise httpcore2.ReadTimeout("the call's time is up")
    return rest if timeout is None else min(rest, timeout)


def _within(seconds: float, connect: Callable[[], httpcore2.NetworkStream]) -> httpcore2.NetworkStream:
    """Wait for a connection no longer than `seconds`; one that comes later is closed."""
    answers: queue.SimpleQueue[httpcore2.NetworkStream | BaseException] = queue.SimpleQueue()
    late = threading.Event()

    def work() -> None:
        try:
            stream = connect()
        except BaseException as error:  # noqa: B036  # handed to the caller
            answers.put(error)
            return
        answers.put(stream)
        if late.is_set():
            stream.close()

    threading.Thread(target=work, daemon=True).start()
    answer = _heard(answers, seconds, late)
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _heard(answers: queue.SimpleQueue[Answer], seconds: float, late: threading.Event) -> Answer:
    """Take the answer of a thread; `late` is set where nobody waits for it any more."""
    ends = time.monotonic() + seconds
    try:
        while True:
            rest = ends - time.monotonic()
            with suppress(queue.Empty):
                return answers.get(timeout=max(min(rest, HEARING), 0))
            if rest <= HEARING:
                raise httpcore2.ConnectTimeout("no connection in time")
            STOPPED.get()()
    except BaseException:
        late.set()
        raise
