"""Files read from elsewhere, kept on this machine up to a number of bytes; those used last stay."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import PleinairError

MAX_BYTES = 4 * 2**30
_SHARE = 0.8  # of the bytes that stay when there are too many


class ReadCache:
    """Folder of what was read, by key; processes may share it."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        """Store the folder, which need not exist."""
        self._folder, self._max_bytes = folder, max_bytes
        self._lock, self._size = threading.Lock(), -1  # bytes, as far as known here; -1: not counted yet

    def get(self, key: str, fetch: Callable[[], bytes]) -> bytes:
        """Return the bytes of a key, from `fetch` if they are not there; raise what that raises.

        The key changes with the content. Without room on the disk nothing is kept.
        """
        path = self._folder / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        try:
            data = path.read_bytes()
            os.utime(path)
            return data
        except OSError:
            data = fetch()
        with suppress(PleinairError):
            write_whole(path, data, durable=False)
            self._grow(len(data))
        return data

    def _grow(self, size: int) -> None:
        """Count bytes; remove those used longest ago if there are too many."""
        with self._lock:
            self._size = (
                self._size + size if self._size >= 0 else sum(entry.st_size for _, entry in self._entries())
            )
            if self._size <= self._max_bytes:
                return
            entries = sorted(self._entries(), key=lambda entry: entry[1].st_mtime_ns)
            self._size = sum(entry.st_size for _, entry in entries)
            for path, entry in entries:
                if self._size <= _SHARE * self._max_bytes:
                    break
                with suppress(OSError):  # another process was first
                    path.unlink()
                self._size -= entry.st_size

    def _entries(self) -> list[tuple[Path, os.stat_result]]:
        entries = list[tuple[Path, os.stat_result]]()
        for path in self._folder.glob("[0-9a-f]*"):
            with suppress(OSError):
                entries.append((path, path.stat()))
        return entries
