"""HTTP transport whose every wait ends at the call's deadline, and every reply at a maximum size.

openai's own client waits anew for every byte, so a server that drips never ends; here each read gets what
is left of the call, and the caller may stop it within a second. Proxies are those of the environment;
compressed replies are read. Not covered: SOCKS proxies, HTTP/2, streams, and a stop in the middle of a
TLS handshake.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

import httpcore2
import httpx2

from pleinair.tools.callbacks import no_callback
from pleinair.tools.deadline import check_deadline, seconds_left
from pleinair.tools.http.addresses import proxy_of
from pleinair.tools.http.replies import decompressed, normalised, too_large

MAX_REPLY = 4 * 2**20  # bytes; an answer of ours has a few kilobytes
TICK = 1.0  # seconds between two checks whether to stop
CHUNK = 64 * 1024  # bytes written between two looks at the clock
STATED = "status_in_body"  # extension of a response whose status is that of an error object in its body
_OF_THE_BODY = (b"content-encoding", b"content-length", b"transfer-encoding")
_ERRORS: dict[type[Exception], type[httpx2.TransportError]] = {
    httpcore2.ConnectTimeout: httpx2.ConnectTimeout,
    httpcore2.WriteTimeout: httpx2.WriteTimeout,
    httpcore2.TimeoutException: httpx2.ReadTimeout,
    httpcore2.ConnectError: httpx2.ConnectError,
    httpcore2.WriteError: httpx2.WriteError,
    httpcore2.NetworkError: httpx2.ReadError,
    httpcore2.ProtocolError: httpx2.RemoteProtocolError,
    httpcore2.ProxyError: httpx2.ProxyError,
}


class CallLimits:
    """Time left for a call, and the check that may stop it.

    Args:
        remaining: seconds left of the call.
        check: called at most once in `TICK` seconds of a wait; what it raises ends the call.
    """

    def __init__(self, remaining: Callable[[], float], check: Callable[[], None] = no_callback) -> None:
        self._remaining, self._check, self._checked = remaining, check, time.monotonic()

    def check(self) -> None:
        """Raise what stops the call, the run's deadline too."""
        check_deadline()
        if time.monotonic() - self._checked >= TICK:
            self._checked = time.monotonic()
            self._check()

    def left(self) -> float:
        """Return the seconds left of the call and of the run; raise what stops it."""
        self.check()
        return min(self._remaining(), seconds_left())

    def wait(self, timeout: float | None) -> float:
        """Return the seconds that a wait may take; raise a timeout when there are none, or what stops it."""
        if (remaining := self.left()) <= 0:
            raise httpcore2.ReadTimeout("the call's time is up")
        return remaining if timeout is None else min(remaining, timeout)


_UNLIMITED = CallLimits(lambda: 600.0)  # outside of a limited call every single wait may take ten minutes
_limits: ContextVar[CallLimits] = ContextVar("limits", default=_UNLIMITED)


def call_seconds_left() -> float:
    """Return the seconds left of the current limited call; raise what stops it."""
    return _limits.get().left()


@contextmanager
def limited(limits: CallLimits) -> Iterator[None]:
    """Limit every request in the block."""
    token = _limits.set(limits)
    try:
        yield
    finally:
        _limits.reset(token)


def http_client(max_reply: int = MAX_REPLY) -> httpx2.Client:
    """Build a client for one server whose replies are at most `max_reply` bytes."""
    return httpx2.Client(transport=_Transport(max_reply), headers={"accept-encoding": "identity"})


class _Transport(httpx2.BaseTransport):
    """Transport of whole replies, in the time that `limited` allows."""

    def __init__(self, max_reply: int) -> None:
        self._max_reply = max_reply
        self._pools: dict[str, httpcore2.ConnectionPool] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; raise `BadReply` for what no model's server sends."""
        pool = self._pool(proxy_of(str(request.url)))
        with _translated_errors():
            reply = pool.handle_request(_core_request(request))
            try:
                body = self._body(reply)
            finally:
                reply.close()
        status, body = normalised(request.url.path, reply.status, body)
        return httpx2.Response(
            status,
            headers=_headers(reply.headers, body),
            content=body,
            request=request,
            extensions={STATED: status != reply.status},
        )

    def _pool(self, proxy: str) -> httpcore2.ConnectionPool:
        if proxy not in self._pools:
            parts = httpx2.Proxy(proxy) if proxy else None  # with the name and the password
            self._pools[proxy] = httpcore2.ConnectionPool(
                ssl_context=_ssl_context(),
                proxy=httpcore2.Proxy(str(parts.url), parts.raw_auth) if parts else None,
                max_keepalive_connections=0,  # one costs little beside a call, and is never stale
                network_backend=_Backend(),
            )
        return self._pools[proxy]

    def _body(self, reply: httpcore2.Response) -> bytes:
        headers = {name.lower(): value.decode("latin-1") for name, value in reply.headers}
        length = headers.get(b"content-length", "0")
        if length.isdigit() and int(length) > self._max_reply:
            raise too_large(self._max_reply)
        assert isinstance(reply.stream, Iterable)
        body = bytearray()
        for chunk in reply.stream:
            body += chunk
            if len(body) > self._max_reply:
                raise too_large(self._max_reply)
        return decompressed(bytes(body), headers.get(b"content-encoding", ""), self._max_reply)

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.close()


@cache
def _ssl_context() -> ssl.SSLContext:
    """Return the one context of this process: reading the certificates takes tens of milliseconds."""
    return httpx2.create_ssl_context()


def _core_request(request: httpx2.Request) -> httpcore2.Request:
    url = request.url
    return httpcore2.Request(
        method=request.method,
        url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=request.read(),
        extensions=request.extensions,
    )


def _headers(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of a body that is not encoded any more, and that is JSON where it looks like it."""
    is_json = body[:1] in (b"{", b"[")
    replaced = (*_OF_THE_BODY, b"content-type") if is_json else _OF_THE_BODY
    others = [(name, value) for name, value in headers if name.lower() not in replaced]
    return [*others, (b"content-type", b"application/json")] if is_json else others


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise httpcore's errors as those of httpx, which openai's client handles."""
    try:
        yield
    except tuple(_ERRORS) as error:
        kind = next(theirs for ours, theirs in _ERRORS.items() if isinstance(error, ours))
        raise kind(str(error) or type(error).__name__) from error


class _Backend(httpcore2.NetworkBackend):
    """Network backend whose connections keep to the limits of the call."""

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
        """Resolve the name and connect, in a thread, because resolving a name has no time limit."""
        seconds = _limits.get().wait(timeout)
        connect = partial(self._backend.connect_tcp, host, port, seconds, local_address, socket_options)
        return _Stream(_connected(connect, seconds))


class _Stream(httpcore2.NetworkStream):
    """Network stream whose reads, writes and handshake keep to the limits of the call.

    Empty lines before a reply are skipped, which h11 takes for a reply without a status.
    """

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        self._has_begun = False  # the reply

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, up to `max_bytes`; the caller may stop it at every tick."""
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            seconds = _limits.get().wait(None if ends is None else ends - time.monotonic())
            try:
                data = self._stream.read(max_bytes, min(seconds, TICK))
            except httpcore2.ReadTimeout:
                if seconds <= TICK:
                    raise
                continue
            rest = data if self._has_begun else data.lstrip(b"\r\n")
            if rest or not data:
                self._has_begun = True
                return rest

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of `buffer`."""
        self._has_begun = False
        for start in range(0, len(buffer), CHUNK):
            self._stream.write(buffer[start : start + CHUNK], _limits.get().wait(timeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Encrypt the connection."""
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _limits.get().wait(timeout)))

    def get_extra_info(self, info: str) -> Any:
        """Return a property of the connection."""
        return self._stream.get_extra_info(info)


def _connected(connect: Callable[[], httpcore2.NetworkStream], seconds: float) -> httpcore2.NetworkStream:
    """Wait for a connection at most `seconds`; one that comes later is closed."""
    future: Future[httpcore2.NetworkStream] = Future()

    def work() -> None:
        try:
            future.set_result(connect())
        except BaseException as error:  # noqa: B036  # raised in the caller's thread
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    ends = time.monotonic() + seconds
    try:
        while (rest := ends - time.monotonic()) > 0:
            if futures.wait([future], timeout=min(rest, TICK)).done:
                return future.result()
            _limits.get().check()
        raise httpcore2.ConnectTimeout("no connection in time")
    except BaseException:
        future.add_done_callback(_close)
        raise


def _close(future: Future[httpcore2.NetworkStream]) -> None:
    if not future.exception():
        future.result().close()
