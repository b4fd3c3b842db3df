"""Server on this machine that answers each connection with the next action of a script, mostly a fault.

It works on bare sockets, because libraries cannot reset, drip, or announce more than they send.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from email.utils import formatdate
from http.client import parse_headers
from typing import Any

Act = Callable[["FaultServer", socket.socket], None]

PAUSE = 0.05  # seconds between two bytes
IDLE = 30.0  # seconds until a connection on which nothing moves is closed
TIMEOUT = 300.0  # seconds that a hanging server lasts, longer than any test waits
TOKENS = 15  # of every completion that reports usage


@dataclass
class Request:
    """Request that a server received."""

    path: str
    headers: Message
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class FaultServer:
    """Server that plays acts in order, the last one again and again, and records requests and tokens."""

    def __init__(self, acts: Sequence[Act] = (), port: int = 0) -> None:
        self.acts, self.requests, self.tokens = list(acts), list[Request](), 0
        self.connections = 0
        self._done = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def wait(self, seconds: float) -> bool:
        """Wait at most until the test ends; return True then."""
        return self._done.wait(seconds)

    def close(self) -> None:
        self._done.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                act = self.acts[min(self.connections, len(self.acts) - 1)]
                self.connections += 1
                thread = threading.Thread(target=self._play, args=(connection, act), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _play(self, connection: socket.socket, act: Act) -> None:
        with connection, suppress(OSError):
            connection.settimeout(IDLE)
            if request := self._read(connection):
                self.requests.append(request)
                act(self, connection)

    def _read(self, connection: socket.socket) -> Request | None:
        with connection.makefile("rb") as stream:
            if not (line := stream.readline().split()):
                return None
            headers = parse_headers(stream)
            body = stream.read(int(headers.get("Content-Length", 0)))
            return Request(line[1].decode(), headers, body)


@contextmanager
def playing(*acts: Act) -> Iterator[FaultServer]:
    server = FaultServer(acts)
    try:
        yield server
    finally:
        server.close()


def head(status: int, length: int | None, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "Connection: close", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {length}"] if length is not None else []
    return "\r\n".join([*lines, "", ""]).encode()


def reply(status: int, body: object = b"", **headers: str) -> Act:
    """Send a complete reply; a body that is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda _, connection: connection.sendall(head(status, len(data), **headers) + data)


def error(status: int, message: str = "no", code: str | None = None, **headers: str) -> Act:
    """Send an error in OpenAI's form."""
    body = {"error": {"message": message, "type": "t", "param": None, "code": code}}
    return reply(status, body, **headers)


def later(status: int, seconds: float) -> Act:
    """Send an error whose Retry-After is a date."""

    def act(server: FaultServer, connection: socket.socket) -> None:
        error(status, retry_after=formatdate(time.time() + seconds, usegmt=True))(server, connection)

    return act


def completion(
    content: str | None, finish: str | None = "stop", *, used: int = TOKENS, **message: Any
) -> dict[str, Any]:
    """Build a completion; `used` is the total of tokens."""
    usage = {"prompt_tokens": used - 5, "completion_tokens": 5, "total_tokens": used}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None} | message,
                "finish_reason": finish,
            }
        ],
        "usage": usage,
    }


def says(content: str | None, finish: str | None = "stop", **message: Any) -> Act:
    """Send a completion and charge for it."""

    def act(server: FaultServer, connection: socket.socket) -> None:
        server.tokens += TOKENS
        reply(200, completion(content, finish, **message))(server, connection)

    return act


def without(key: str, value: Any = None) -> Act:
    """Send a valid completion in which one part is replaced, or left out."""
    body = completion('{"match": true}') | {key: value}
    return reply(200, {name: part for name, part in body.items() if part is not None or value is not None})


def reset(sent: bytes = b"") -> Act:
    """Reset the connection, after some bytes or before any."""

    def act(_: FaultServer, connection: socket.socket) -> None:
        connection.sendall(sent)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return act


def sends(data: bytes) -> Act:
    """Send bytes and close the connection."""
    return lambda _, connection: connection.sendall(data)


def hang(server: FaultServer, connection: socket.socket) -> None:
    """Send nothing."""
    server.wait(TIMEOUT)


def drip(data: bytes) -> Act:
    """Send byte after byte, slowly but fast enough for any timeout of a read."""

    def act(server: FaultServer, connection: socket.socket) -> None:
        for byte in data * 1000:
            if server.wait(PAUSE):
                return
            connection.sendall(bytes([byte]))

    return act


def drip_body(server: FaultServer, connection: socket.socket) -> None:
    """Send the head at once and the body byte by byte."""
    connection.sendall(head(200, 10**6))
    drip(b" ")(server, connection)


def endless(server: FaultServer, connection: socket.socket) -> None:
    """Send an endless body without a length."""
    connection.sendall(head(200, None))
    while not server.wait(0):
        connection.sendall(b" " * 65536)
