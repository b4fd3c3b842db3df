"""Bytes by keys in one SQLite file, for what can be computed again.

One file serves all processes; over its limit the oldest rows go. Where it cannot be read or written, nothing
is cached, which is logged once.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

_WAIT = 10.0  # seconds for another process that writes
_MOST_KEYS = 10_000  # of one query; SQLite accepts 32,766

_log = logging.getLogger(__name__)


class BlobCache:
    """Values of about equal size by keys, in a table of a file."""

    def __init__(self, path: Path, table: str, most_bytes: int, what: str) -> None:
        """Keep `most_bytes` of values at `path`, which is created when needed; the log calls them `what`."""
        self._path, self._table, self._most = path, table, most_bytes
        self._what, self._failed = what, False

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the cached values by key; the others are left out."""
        values: dict[str, bytes] = {}
        with self._reporting(), closing(self._connect()) as database:
            for start in range(0, len(keys), _MOST_KEYS):
                some = keys[start : start + _MOST_KEYS]
                query = f"SELECT key, data FROM {self._table} WHERE key IN ({','.join('?' * len(some))})"
                values.update(database.execute(query, tuple(some)))
        return values

    def write(self, values: Mapping[str, bytes]) -> None:
        """Store values by key, and drop the oldest rows over the limit; a key that exists stays as it is."""
        if not values:
            return
        table = self._table
        with self._reporting(), closing(self._connect()) as database, database:
            database.executemany(f"INSERT OR IGNORE INTO {table} (key, data) VALUES (?, ?)", values.items())
            (count,) = database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
            query = f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY id LIMIT ?)"
            size = max(len(next(iter(values.values()))), 1)
            database.execute(query, (max(count - self._most // size, 0),))

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=_WAIT)
        columns = "id INTEGER PRIMARY KEY, key TEXT UNIQUE, data BLOB NOT NULL"
        database.execute(f"CREATE TABLE IF NOT EXISTS {self._table} ({columns})")
        return database

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Log the first error of the file and go on without it."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if not self._failed:
                _log.warning("%s are not cached in %s: %s", self._what, self._path, error)
            self._failed = True
