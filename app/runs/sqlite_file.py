"""SQLite files of runs: the run table of a home, connections, and the errors of files that cannot be used."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self, TypeVar

from filelock import FileLock, Timeout

from pleinair.app.runs.database import Connection
from pleinair.app.runs.tables import prepare
from pleinair.tools.storage.files import RESERVE, DiskFull, explain
from pleinair.tools.types import BadInput, PleinairError

T = TypeVar("T")

WAIT = 30.0  # seconds for other writers


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that waits for other writers and survives a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    db.create_function("casefold", 1, lambda text: str(text or "").casefold(), deterministic=True)
    try:
        _use_log(db)
        db.execute("PRAGMA synchronous=FULL")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _use_log(db: sqlite3.Connection) -> None:
    """Switch a database to SQLite's log; where others do so too, SQLite does not wait for them by itself."""
    end = time.monotonic() + WAIT
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if _code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Return a connection that writes nothing, where no file can be written either.

    Not covered there: what a process that was killed has not yet copied from SQLite's log into the table.
    """
    has_log = path.with_name(f"{path.name}-wal").exists()
    for mode in ("mode=ro", "immutable=1") if has_log else ("immutable=1",):
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=30, check_same_thread=False
        )
        db.row_factory = sqlite3.Row
        try:
            db.execute("SELECT 1 FROM sqlite_schema LIMIT 1")
            return db
        except sqlite3.Error as error:
            db.close()
            fault = error
    raise fault


def _code_of(error: sqlite3.Error) -> int:
    """Return SQLite's code of an error, without its extension; 0 if it has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def unusable(error: sqlite3.Error | OSError, path: Path) -> PleinairError:
    """Return the error of a SQLite file that cannot be used, with what to do; it is always kept."""
    if isinstance(error, OSError):
        return explain(error, path)
    code = _code_of(error)
    failed = code == sqlite3.SQLITE_IOERR
    if code == sqlite3.SQLITE_FULL or (failed and shutil.disk_usage(path.parent).free < RESERVE):
        return DiskFull(f"The disk of {path} is full.", "Free some space, then run again.")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        remedy = "Runs can be listed and shown; to draw, make it writable or set PLEINAIR_HOME."
        return PleinairError(f"{path} is read-only.", remedy)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        remedy = (
            f"Keep it: `sqlite3 {path} .recover` may restore it, and images are in the folders beside it."
        )
        return BadInput(f"{path} is damaged: {error}.", remedy)
    return PleinairError(f"{path} cannot be used: {error}.", "Is the disk full, or another process stuck?")


class SqliteDatabase:
    """SQLite file of the home.

    The threads share one connection. It is closed at the end of the outermost `with` of the object, or of a
    single call outside of one, since garbage collection would leave it open for an unknown time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._pid = self._users = 0
        self._connection: sqlite3.Connection | None = None

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
    def transaction(self) -> Iterator[Connection]:
        """Write in one transaction, which is undone if the block raises."""
        with self._connected(self._open) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def readable(self) -> AbstractContextManager[Connection]:
        """Return a connection for reading, also from a home that is full or read-only."""
        return self._connected(self._open_readable)

    def repeated(self, action: Callable[[bool], T]) -> T:
        """Return what an action returns: a file of this machine is not away."""
        return action(False)

    @contextmanager
    def locked(self, name: str, seconds: float) -> Iterator[None]:
        """Acquire the lock of a file beside the database; in a home that cannot be written to, nothing."""
        path = self._path.parent / "threads" / f"{name}.lock"
        lock = FileLock(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=seconds)
        except Timeout as error:  # an OSError, too
            raise TimeoutError(name) from error
        except OSError:  # nothing can be written to such a home, so nothing can be lost
            pass
        try:
            yield
        finally:
            lock.release()

    def exists(self) -> bool:
        """Return whether there is a file."""
        return self._path.exists()

    def has_threads(self, db: Connection) -> bool:
        """Return whether it has the table of chat threads, which a read-only one of an old version lacks."""
        return bool(db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'threads'").fetchone())

    def forget(self, db: Connection, run_id: str) -> None:
        """Delete nothing: all else of a run is in its folder."""

    @contextmanager
    def _connected(self, opened: Callable[[], sqlite3.Connection]) -> Iterator[sqlite3.Connection]:
        with self._lock, self:
            try:
                yield opened()
            except (sqlite3.Error, OSError) as error:
                raise unusable(error, self._path) from error

    def _open_readable(self) -> sqlite3.Connection:
        """Return the connection, or one for reading where the disk is full or read-only."""
        try:
            return self._open()
        except (sqlite3.OperationalError, OSError):
            if not self._path.is_file():
                raise
            self._connection, self._pid = connect_read_only(self._path), os.getpid()
            return self._connection

    def _open(self) -> sqlite3.Connection:
        if self._connection is None or self._pid != os.getpid():
            db = connect(self._path)
            try:
                prepare(db, self._path)
            except BaseException:
                db.close()
                raise
            self._connection, self._pid = db, os.getpid()
        return self._connection
