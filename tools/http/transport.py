"""The way to one server: every wait ends at the call's deadline, and every reply at a size.

openai's own client waits anew for every byte, so a server that drips never ends; here each read gets what
is left of the call, and whoever called may stop it within a second. Proxies are those of the environment;
compressed replies are refused. Not covered: proxies by SOCKS, HTTP/2, streams, and a stop in the middle of
agreeing on encryption.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore2
import httpx2

from pleinair.tools.errors import BadReply, TooLarge
from pleinair.tools.http.addresses import proxy_of
from pleinair.tools.http.deadline import Punctual

LARGEST = 4 * 2**20  # bytes of a reply; an answer of ours has a few kilobytes
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


class Wire(httpx2.BaseTransport):
    """Send requests and read whole replies, within the time that `REMAINING` gives."""

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._pools: dict[str, httpcore2.ConnectionPool] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; raises `BadReply` for what no model's server sends."""
        pool = self._pool(proxy_of(str(request.url)))
        with _translated():
            reply = pool.handle_request(_core(request))
            try:
                body = self._body(reply)
            finally:
                reply.close()
        response = httpx2.Response(reply.status, headers=reply.headers, content=body, request=request)
        if reply.status == httpx2.codes.OK:
            _check(request.url.path, body)
        return response

    def _pool(self, proxy: str) -> httpcore2.ConnectionPool:
        """Give the connections through a proxy, or without one."""
        if proxy not in self._pools:
            given: dict[str, Any] = {
                "ssl_context": httpx2.create_ssl_context(),
                "network_backend": Punctual(),
                "max_keepalive_connections": 0,  # one costs little beside a call, and is never stale
            }
            self._pools[proxy] = _through(proxy, given) if proxy else httpcore2.ConnectionPool(**given)
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


def _through(proxy: str, given: dict[str, Any]) -> httpcore2.HTTPProxy:
    """Make connections through a proxy, with the name and password that its address holds."""
    known = httpx2.Proxy(proxy)
    return httpcore2.HTTPProxy(str(known.url), proxy_auth=known.raw_auth, **given)


def _core(request: httpx2.Request) -> httpcore2.Request:
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
def _translated() -> Iterator[None]:
    """Raise the layer's errors as those that openai's client knows."""
    try:
        yield
    except tuple(MAPPED) as error:
        kind = next(theirs for ours, theirs in MAPPED.items() if isinstance(error, ours))
        raise kind(str(error) or type(error).__name__) from error


def _check(path: str, body: bytes) -> None:
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
