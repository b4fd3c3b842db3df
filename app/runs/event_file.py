"""Writer of an event log that is a file of the home: one line an event, whole even after a crash."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pleinair.tools.storage.files import explain
from pleinair.tools.types import PleinairError


class EventFile:
    """Writer of the file at `path`; an incomplete last line, which a crash leaves, is removed first."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.count = _repair(path)  # of the lines so far
        self._file: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, line: bytes, *, durable: bool) -> None:
        """Append a line, without its end, which is on disk on return if it is `durable`.

        Raises `DiskFull` or `PleinairError`; the file then ends with the line before.
        """
        if self._file is None:  # its number may be another file's by now
            raise PleinairError(f"{self._path} is closed")
        try:
            _append(self._file, line + b"\n", durable)
        except OSError as error:
            raise explain(error, self._path) from error
        self.count += 1

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._file is not None:
            os.close(self._file)
        self._file = None


def _append(file: int, line: bytes, durable: bool) -> None:
    """Write a line, or truncate the file again, so that a full disk leaves a readable log."""
    end = os.fstat(file).st_size
    try:
        written = os.write(file, line)
    except OSError:
        os.ftruncate(file, end)
        raise
    if written < len(line):
        os.ftruncate(file, end)
        raise OSError(errno.ENOSPC, "short write")
    if durable:
        os.fsync(file)


def _repair(path: Path) -> int:
    """Remove an incomplete last line and return the number of lines."""
    text = path.read_bytes() if path.exists() else b""
    end = text.rfind(b"\n") + 1
    if end < len(text):
        os.truncate(path, end)
    return text.count(b"\n", 0, end)  # also of lines that are damaged: the run itself goes on
