"""Parquet and Arrow files with images in their rows, which processes of their own parse (`rows_process`).

What the parsers need of a file is read here and sent to them. Each process has the limits and rights of
those that decode images (`images.sandbox`). Not covered: limits on memory where the system has none (macOS).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count

from pleinair.tools.child_process import ChildProcess, bare_environment
from pleinair.tools.deadline import check_deadline, seconds_left
from pleinair.tools.retrieval.containers.container import (
    MAX_NAME,
    BadContainer,
    Fault,
    RandomAccess,
    Stored,
    read_exactly,
)
from pleinair.tools.retrieval.containers.rows_process import (
    DATA,
    END,
    FAULT,
    LENGTH,
    MAX_PART,
    MESSAGE,
    NEED,
    PART,
    ROW,
)
from pleinair.tools.retrieval.readers.folder import is_printable

_MODULE = "pleinair.tools.retrieval.containers.rows_process"
_MAX_LINE = 4 * 2**20  # bytes of a row's record as JSON
_MAX_IDLE = 4  # processes that wait for a next request
_TIMEOUT = 60.0  # seconds until the process sends something
_CHUNK = 2**20  # bytes of a file sent at once
_DAMAGED = "damaged, or of a kind that is not read"


class Rows:
    """Container of the images in the rows of a Parquet or Arrow file."""

    def __init__(self, file: RandomAccess) -> None:
        """Read from a file; nothing is read before `files` or `read`."""
        self._file, self._key = file, f"{os.getpid()}-{next(_keys)}"
        self._lock = threading.Lock()  # of reads: a process that reads in order decodes each row once

    def files(self) -> Iterator[Stored | Fault]:
        """Yield the images with the records of their rows, and what is unusable."""
        if find_spec("pyarrow") is None:
            yield Fault("needs the extra `parquet`: pip install 'pleinair[parquet]'")
            return
        try:
            with _parser(self._key) as parser:
                for kind, data in parser.ask(self._file, None, 0):
                    if kind == ROW:
                        yield _line_of(data)
        except BadContainer as error:
            yield Fault(str(error))

    def read(self, place: str, limit: int) -> bytes:
        """Return the bytes of an image, at most `limit`; raise `BadContainer` for an unusable place."""
        if find_spec("pyarrow") is None:
            raise BadContainer("needs the extra `parquet`: pip install 'pleinair[parquet]'")
        with self._lock, _parser(self._key) as parser:
            answers = [data for kind, data in parser.ask(self._file, place, limit) if kind == DATA]
        if len(answers) != 1:
            raise BadContainer(_DAMAGED)
        return answers[0]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line_of(data: bytes) -> Stored | Fault:
    """Return a line of a listing; raise `BadContainer` for what the parser never sends."""
    try:
        line = json.loads(data)
        if "fault" in line:
            return Fault(str(line["fault"])[:MAX_NAME])
        name, record = str(line["name"]), dict(line["record"])
        if len(name) > MAX_NAME or not is_printable(name) or ".." in name.split("/") or name[:1] in ("", "/"):
            raise ValueError(name)
        return Stored(name, int(line["size"]), str(line["place"]), True, record, int(line["line"]))
    except (ValueError, LookupError, TypeError, RecursionError):
        raise BadContainer(_DAMAGED) from None


class _Parser(ChildProcess):
    """Process that parses, and the socket to it; `key` is of the container that it has open."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        # Arrow's own allocators reserve much
        environment = bare_environment() | {"ARROW_DEFAULT_MEMORY_POOL": "system"}
        super().__init__(_MODULE, self._socket, theirs, stdout=subprocess.DEVNULL, env=environment)
        self.key, self.fit, self.owner = "", True, os.getpid()

    def ask(self, file: RandomAccess, place: str | None, limit: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield the answers to one request, reading what the process needs of the file.

        Raise `BadContainer` for its reason, and when the process ends or hangs; `OutOfTime` after the
        deadline.
        """
        self.fit = False
        request = {"key": self.key, "size": file.size, "place": place, "limit": limit}
        try:
            self._send(json.dumps(request).encode())
            while (message := self._receive(limit))[0] != END:
                kind, data = message
                if kind == FAULT:
                    self.fit = True
                    raise BadContainer(data.decode("utf-8", "replace") or _DAMAGED)
                if kind == NEED:
                    self._answer(file, *PART.unpack(data))
                else:
                    yield kind, data
        except (OSError, EOFError):
            check_deadline()
            raise BadContainer(f"{_DAMAGED}: its parser ended, or took over {_TIMEOUT:.0f} s") from None
        self.fit = True

    def _receive(self, limit: int) -> tuple[bytes, bytes]:
        kind, size = MESSAGE.unpack(self._exactly(MESSAGE.size))
        largest = limit if kind == DATA else _MAX_LINE
        if size > largest:
            raise BadContainer(f"a row over {_MAX_LINE:,} bytes without its image")
        return kind, self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        check_deadline()
        self._socket.settimeout(min(_TIMEOUT, max(seconds_left(), 0.01)))
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            if not (received := self._socket.recv_into(rest)):
                raise EOFError
            rest = rest[received:]
        return bytes(data)

    def _send(self, data: bytes) -> None:
        self._socket.sendall(LENGTH.pack(len(data)) + data)

    def _answer(self, file: RandomAccess, offset: int, length: int) -> None:
        """Send a part of the file."""
        if length > MAX_PART or offset + length > file.size:
            raise BadContainer(_DAMAGED)
        self._socket.sendall(LENGTH.pack(length))
        for start in range(offset, offset + length, _CHUNK):
            self._socket.sendall(read_exactly(file, start, min(_CHUNK, offset + length - start)))


_keys = count()
_idle: deque[_Parser] = deque()
_lock = threading.Lock()  # of `_idle`; after a fork its processes are the parent's


@contextmanager
def _parser(key: str) -> Iterator[_Parser]:
    """Borrow a process, one that has the container open if there is one; start it if none is idle."""
    with _lock:
        parser = _borrow(key)
    parser = parser or _Parser()
    parser.key = key
    try:
        yield parser
    finally:
        with _lock:
            if parser.fit and len(_idle) < _MAX_IDLE:
                _idle.append(parser)
            else:
                parser.close()


def _borrow(key: str) -> _Parser | None:
    usable = [parser for parser in _idle if parser.owner == os.getpid() and parser.alive]
    chosen = next((parser for parser in usable if parser.key == key), usable[0] if usable else None)
    for parser in [parser for parser in _idle if parser is chosen or not parser.alive]:
        _idle.remove(parser)
    return chosen
