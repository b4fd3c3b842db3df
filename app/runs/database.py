"""Connections to SQLite files of runs, and what is told where such a file cannot be used."""

from __future__ import annotations

import shutil
import sqlite3
import time
from pathlib import Path

from pleinair.tools.storage.files import RESERVE, DiskFull, explain
from pleinair.tools.types import BadInput, PleinairError

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
