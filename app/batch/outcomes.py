"""File of a batch's outcomes: JSON Lines, one line an image, of which none is lost or there twice."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pleinair.app.batch.rows import Row
from pleinair.app.runs.store import Busy
from pleinair.app.texts import printable_json
from pleinair.tools.storage.files import explain, write_whole
from pleinair.tools.types import BadInput

OUTCOMES = "outcomes.jsonl"
FILES = ("picture", "sidecar", "original")  # fields of an entry
Entry = dict[str, Any]  # line, id, key, image, columns, and the fields of `RunView`
Place = tuple[str, int]  # a row's key, and the number of an image


def _place_of(entry: Entry) -> Place:
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
            entries[_place_of(entry)] = entry
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
        self.folder, self._path = folder, folder / OUTCOMES
        self._lock = -1
        self.entries: dict[Place, Entry] = {}

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise explain(error, self.folder) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.entries = read_entries(self.folder)
        except BlockingIOError as error:
            os.close(self._lock)
            raise Busy(f"{self.folder}: another batch is writing to this folder") from error
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def update(self, rows: Mapping[str, Row], stale: Collection[Place] = ()) -> None:
        """Rewrite the file by line, with what the rows and the folder are by now, unless it is so.

        Args:
            rows: of the file of prompts, by their keys; the line of a row that is gone is null.
            stale: outcomes that are removed.
        """
        fresh = [entry for place, entry in self.entries.items() if place not in stale]
        moved = [{**entry, **self._present(entry, rows.get(entry["key"]))} for entry in fresh]
        moved.sort(key=lambda entry: (entry["line"] is None, entry["line"] or 0, entry["image"]))
        text = _text(moved)
        if not self._path.exists() or self._path.read_bytes() != text:
            write_whole(self._path, text)
        self.entries = {_place_of(entry): entry for entry in moved}

    def _present(self, entry: Entry, row: Row | None) -> Entry:
        """Return the fields of an entry that change with the file and the place of the folder."""
        paths = {name: self.folder / Path(entry[name]).name for name in FILES if entry.get(name)}
        files = {name: str(path) for name, path in paths.items() if path.exists()}
        return files | ({"line": row.line, "columns": row.columns} if row else {"line": None})

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
        self.entries[_place_of(entry)] = entry


def _text(entries: Iterable[Entry]) -> bytes:
    return b"".join(printable_json(entry).encode() + b"\n" for entry in entries)
