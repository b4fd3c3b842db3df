"""How SQLite files are opened here, and how long they stay open."""

from __future__ import annotations

import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pleinair.tools.types import PleinairError


def connect(path: Path) -> sqlite3.Connection:
    """Open a SQLite file that waits for other writers and survives a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    try:
        for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL"):
            db.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        db.close()
        raise
    return db


class SharedDatabase(ABC):
    """Share one connection between threads, and close it with the last use.

    A use is a `with` of the object itself, or one transaction outside of any: a connection that is left to
    Python's collector stays open for as long as that pleases. A forked process gets a connection of its own.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._pid = self._users = 0
        self._connection: sqlite3.Connection | None = None

    @abstractmethod
    def _prepare(self, db: sqlite3.Connection) -> None:
        """Make tables in a new file, or raise for one that cannot be used."""

    def __enter__(self) -> Self:
        with self._lock:
            self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._connection and not self._users:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._readable() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    @contextmanager
    def _readable(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self:
            try:
                yield self._open()
            except (sqlite3.Error, OSError) as error:
                raise PleinairError(f"the run table {self._path} cannot be used: {error}") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None or self._pid != os.getpid():
            db = connect(self._path)
            try:
                self._prepare(db)
            except BaseException:
                db.close()
                raise
            self._connection, self._pid = db, os.getpid()
        return self._connection
