"""The way to one server: every wait ends at the call's deadline, and every reply at a size.

openai's own client waits anew for every byte, so a server that drips never ends; here each read gets what
is left of the call, and whoever called may stop it within a second. Proxies are those of the environment;
compressed replies are refused. Not covered: proxies by SOCKS, HTTP/2, streams, and a stop while a name is
looked up by a proxy.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import httpcore2
import httpx2

from pleinair.tools.addresses import proxy_of
from pleinair.tools.faults import BadReply, TooLarge

# Seconds left of the call; a request outside of one has ten minutes for each wait.
REMAINING: ContextVar[Callable[[], float]] = ContextVar("REMAINING", default=lambda: 600.0)
# Asked every second of a wait; what it raises ends the call.
STOPPED: ContextVar[Callable[[], None]] = ContextVar("STOPPED", default=lambda: None)
HEARING = 1.0  # seconds
LARGEST = 4 * 2**20  # bytes of a reply; an answer of ours has a few kilobytes
PIECE = 64 * 1024  # bytes written before the clock is looked at again
PLAIN = ("", "identity")
MAPPED: dict[type[Exception], type[httpx2.TransportError]] = {
    httpcore2.ConnectTimeout: httpx2.ConnectTimeout,
    httpcore2.WriteTimeout: httpx2.WriteTimeout,
    httpcore2.TimeoutException: httpx2.ReadTimeout,
    httpcore2.ConnectError: httpx2.ConnectError,
    httpcore2.WriteError: httpx2.WriteError,
    httpcore2.NetworkError: httpx2.ReadError,
    httpcore2.ProtocolError: httpx2.RemoteProtocolError,
    httpcore2.ProxyError: httpx2.ProxyError,
}
PARTS = {  # what a reply must have, which openai's client takes on trust
    "/chat/completions": "choices",
    "/responses": "output",
    "/images/generations": "data",
    "/images/edits": "data",
}

Answer = TypeVar("Answer")


class Wire(httpx2.BaseTransport):
    """Send requests and read whole replies, within the time that `REMAINING` gives."""

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._pools: dict[str, httpcore2.ConnectionPool] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; raises `BadReply` for what no model's server sends."""
        pool = self._pool(proxy_of(str(request.url)))
        with translated():
            reply = pool.handle_request(core(request))
            try:
                body = self._body(reply)
            finally:
                reply.close()
        response = httpx2.Response(reply.status, headers=reply.headers, content=body, request=request)
        if reply.status == httpx2.codes.OK:
            check(request.url.path, body)
        return response

    def _pool(self, proxy: str) -> httpcore2.ConnectionPool:
        """Give the connections through a proxy, or without one."""
        if proxy not in self._pools:
            given: dict[str, Any] = {
                "ssl_context": httpx2.create_ssl_context(),
                "network_backend": Punctual(),
                "max_keepalive_connections": 0,  # one costs little beside a call, and is never stale
            }
            self._pools[proxy] = through(proxy, given) if proxy else httpcore2.ConnectionPool(**given)
        return self._pools[proxy]

    def _body(self, reply: httpcore2.Response) -> bytes:
        headers = {name.lower(): value.decode("latin-1") for name, value in reply.headers}
        if headers.get(b"content-encoding", "").strip().lower() not in PLAIN:
            raise BadReply("The server compressed its reply, though it was asked not to.")
        length = headers.get(b"content-length", "0")
        if length.isdigit() and int(length) > self._largest:
            raise self._too_large()
        assert isinstance(reply.stream, Iterable)
        pieces, size = [], 0
        for piece in reply.stream:
            pieces.append(piece)
            if (size := size + len(piece)) > self._largest:
                raise self._too_large()
        return b"".join(pieces)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"The server's reply is larger than {self._largest / 2**20:.0f} MiB: not read further."
        )

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.close()


def through(proxy: str, given: dict[str, Any]) -> httpcore2.HTTPProxy:
    """Make connections through a proxy, with the name and password that its address holds."""
    known = httpx2.Proxy(proxy)
    return httpcore2.HTTPProxy(str(known.url), proxy_auth=known.raw_auth, **given)


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
        seconds = left(timeout)
        connect = partial(self._backend.connect_tcp, host, port, seconds, local_address, socket_options)
        return PunctualStream(within(seconds, connect))


class PunctualStream(httpcore2.NetworkStream):
    """Give every read, write and handshake what is left of the call."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, up to `max_bytes`; between two looks the caller may stop."""
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            rest = left(None if ends is None else ends - time.monotonic())
            try:
                return self._stream.read(max_bytes, min(rest, HEARING))
            except httpcore2.ReadTimeout:
                if rest <= HEARING:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of `buffer`."""
        for start in range(0, len(buffer), PIECE):
            self._stream.write(buffer[start : start + PIECE], left(timeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Agree on encryption."""
        safe = self._stream.start_tls(ssl_context, server_hostname, left(timeout))
        return PunctualStream(safe)

    def get_extra_info(self, info: str) -> Any:
        """Tell what is known of the connection."""
        return self._stream.get_extra_info(info)


def left(timeout: float | None) -> float:
    """Give the seconds that a wait may take; raises a timeout when there are none, or what stops the call."""
    STOPPED.get()()
    rest = REMAINING.get()()
    if rest <= 0:
        raise httpcore2.ReadTimeout("the call's time is up")
    return rest if timeout is None else min(rest, timeout)


def within(seconds: float, connect: Callable[[], httpcore2.NetworkStream]) -> httpcore2.NetworkStream:
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
    answer = heard(answers, seconds, late)
    if isinstance(answer, BaseException):
        raise answer
    return answer


def heard(answers: queue.SimpleQueue[Answer], seconds: float, late: threading.Event) -> Answer:
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


def core(request: httpx2.Request) -> httpcore2.Request:
    """Put a request into the words of the layer below."""
    url = request.url
    return httpcore2.Request(
        method=request.method,
        url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=request.read(),
        extensions=request.extensions,
    )


@contextmanager
def translated() -> Iterator[None]:
    """Raise the layer's errors as those that openai's client knows."""
    try:
        yield
    except tuple(MAPPED) as error:
        kind = next(theirs for ours, theirs in MAPPED.items() if isinstance(error, ours))
        raise kind(str(error) or type(error).__name__) from error


def check(path: str, body: bytes) -> None:
    """Require the outer form of a reply, which openai's client takes on trust."""
    wanted = next((part for end, part in PARTS.items() if path.endswith(end)), "")
    if not wanted:
        return
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        raise BadReply(f"The server's reply is no JSON: {body[:60]!r}.") from None
    if not isinstance(reply, dict):
        raise BadReply(f"The server's reply is no JSON object: {body[:60]!r}.")
    if reply.get("error"):
        raise BadReply(f"The server reports an error as if it were an answer: {str(reply['error'])[:200]}.")
    parts = reply.get(wanted)
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise BadReply(f"The server's reply has no {wanted}: {body[:60]!r}.")
    if wanted == "choices" and not (parts and isinstance(parts[0].get("message"), dict)):
        raise BadReply(f"The server's reply has no choice with a message: {body[:60]!r}.")
