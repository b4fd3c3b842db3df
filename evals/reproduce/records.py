"""Measurements of a command in a file of JSON lines: each is appended at once and never made twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pleinair.tools.storage.files import explain, require_writable
from pleinair.tools.types import BadInput

Entry = dict[str, Any]  # JSON


class Records:
    """Entries of a file by their keys; a line that a killed command cut off is left out and made again."""

    def __init__(self, path: Path) -> None:
        """Read a file, which need not exist."""
        self._path = path
        self._entries = {entry["key"]: entry for entry in _read(path)}
        self._complete = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> Entry:
        return self._entries[key]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, key: str) -> Entry | None:
        """Return an entry, None if there is none."""
        return self._entries.get(key)

    def add(self, key: str, **facts: Any) -> Entry:
        """Append an entry and return it; raise `PleinairError` where it cannot be written."""
        entry = {"key": key, **facts}
        text = ("" if self._complete else "\n") + json.dumps(entry, ensure_ascii=False) + "\n"
        self._complete = False  # in case a part of it is written
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise explain(error, self._path) from error
        self._complete = True
        self._entries[key] = entry
        return entry


def checked_out(out: Path) -> Path:
    """Return the absolute path of a folder for results; raise `BadInput` for a file."""
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {str(out)!r}: it is a file; must be a folder")
    return out.absolute()


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Lock the folder of a command's results, so that no other command pays for the same work.

    Raises:
        BadInput: another command holds it.
        PleinairError: nothing can be written there.
    """
    require_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / "command.lock", timeout=0):
            yield
    except Timeout as error:
        raise BadInput(
            f"--out {str(out)!r}: another command is at work there.", "Wait for it, or name another folder."
        ) from error


def key_of(*parts: object) -> str:
    """Return sixteen digits that depend on all parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _read(path: Path) -> Iterator[Entry]:
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and "key" in entry:
            yield entry
