"""The event log of a run: one JSON line an event, only ever appended.

Progress, the storyboard and tests read this and nothing else. It holds names of pictures, no pixels.
Steps are at-least-once, so a step may be told twice; a snapshot event says what the checkpoint holds.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from pleinair.tools.storage.files import explain
from pleinair.tools.types import BadInput, Value

VERSION: Literal[1] = 1
Kind = Literal["started", "resumed", "step_started", "step_finished", "progress", "ended"]
DURABLE: tuple[Kind, ...] = ("started", "resumed", "step_finished", "ended")


class Event(Value):
    """Tell one thing that happened."""

    v: Literal[1] = VERSION
    seq: int = Field(ge=0)  # without gaps, over crashes too
    at: float  # seconds since the epoch
    kind: Kind
    step: str = ""  # node of the graph
    attempt: int = Field(default=0, ge=0)  # the attempt that is being made: pictures drawn before it
    data: dict[str, Any] = Field(default_factory=dict)


class EventLog:
    """Append to a log; for the holder of the run only, from any of its threads."""

    def __init__(self, path: Path, on_event: Callable[[Event], None] | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._on_event = path, on_event
        self._lock = threading.Lock()
        self._seq = _mend(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, kind: Kind, data: dict[str, Any], step: str = "", attempt: int = 0) -> None:
        """Append one event, then tell it; what changed the state is on disk on return.

        Raises `DiskFull` or `PleinairError`; the log then ends with the event before.
        """
        with self._lock:
            event = Event(seq=self._seq, at=time.time(), kind=kind, step=step, attempt=attempt, data=data)
            try:
                _append(self._file, event.model_dump_json().encode() + b"\n", kind in DURABLE)
            except OSError as error:
                raise explain(error, self._path) from error
            self._seq += 1
        if self._on_event:
            self._on_event(event)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read(path: Path) -> list[Event]:
    """Read all whole events; a line that a crash cut off at the end is left out.

    Raises `BadInput` for a damaged line, or a log of a newer version.
    """
    return list(_events(path, path.read_bytes())) if path.exists() else []


def _events(path: Path, text: bytes) -> Iterator[Event]:
    lines = text.split(b"\n")[:-1]
    for number, line in enumerate(lines, 1):
        try:
            yield Event.model_validate_json(line)
        except ValidationError as error:
            raise BadInput(
                f"{path}: line {number} is no event that this pleinair (version {VERSION}) knows"
            ) from error


def _append(file: int, line: bytes, durable: bool) -> None:
    """Write a whole line or take the torn one back, so that a full disk leaves a readable log."""
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


def _mend(path: Path) -> int:
    """Cut a torn last line off and return the next sequence number."""
    if not path.exists():
        return 0
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        os.truncate(path, len(whole))
    return sum(1 for _ in _events(path, whole))
