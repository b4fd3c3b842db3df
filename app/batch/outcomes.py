"""File of a batch's outcomes: JSON Lines, one line an image, of which none is lost or there twice."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Self

from pleinair.app.runs.store import Busy
from pleinair.app.texts import printable_json
from pleinair.tools.storage.files import explain, write_whole
from pleinair.tools.types import BadInput

OUTCOMES = "outcomes.jsonl"
Entry = dict[str, Any]  # line, id, key, image, and the fields of `RunView`
Place = tuple[str, int]  # a row's key, and the number of an image


def place_of(entry: Entry) -> Place:
    """Return which image of which row an entry is about."""
    return entry["key"], entry["image"]


def read_entries(folder: Path) -> dict[Place, Entry]:
    """Read the outcomes in a folder; a line without an end, of a killed writer, is left out.

    Raises `BadInput` for a line that no batch has written.
    """
    path = folder / OUTCOMES
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    entries = {}
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            entry = json.loads(line)
            entries[place_of(entry)] = entry
        except (ValueError, TypeError, KeyError) as error:
            raise BadInput(
                f"{path}, line {number}: not the outcome of a batch",
                "Move it, or choose another folder.",
            ) from error
    return entries


class Outcomes:
    """Outcomes in a folder that this process alone writes to, from `with` on.

    Raises `Busy` on entry if another process has the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / OUTCOMES
        self._lock = -1
        self.entries: dict[Place, Entry] = {}

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._folder, os.O_RDONLY)
        except OSError as error:
            raise explain(error, self._folder) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.entries = read_entries(self._folder)
        except BlockingIOError as error:
            os.close(self._lock)
            raise Busy(f"{self._folder}: another batch is writing to this folder") from error
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def update(self, lines: dict[str, int], stale: Collection[Place] = ()) -> None:
        """Rewrite the file by line, with the present lines of the rows, unless it is so.

        Args:
            lines: of the file of prompts, by the keys of the rows; the line of a row that is gone is null.
            stale: outcomes that are removed.
        """
        kept = [entry for place, entry in self.entries.items() if place not in stale]
        moved = [{**entry, "line": lines.get(entry["key"])} for entry in kept]
        moved.sort(key=lambda entry: (entry["line"] is None, entry["line"] or 0, entry["image"]))
        text = _text(moved)
        if not self._path.exists() or self._path.read_bytes() != text:
            write_whole(self._path, text)
        self.entries = {place_of(entry): entry for entry in moved}

    def append(self, entry: Entry) -> None:
        """Write an entry to the end of the file, on disk on return; raise `DiskFull` and keep the file."""
        data = _text([entry])
        try:
            with self._path.open("ab") as file:
                before = file.tell()
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), before)
                    raise
        except OSError as error:
            raise explain(error, self._path) from error
        self.entries[place_of(entry)] = entry


def _text(entries: Iterable[Entry]) -> bytes:
    return b"".join(printable_json(entry).encode() + b"\n" for entry in entries)
