"""Connections to SQLite files of runs, and what is told where such a file cannot be used."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from pleinair.tools.storage.files import RESERVE, DiskFull, explain
from pleinair.tools.types import BadInput, PleinairError


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that waits for other writers and survives a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    db.create_function("casefold", 1, lambda text: str(text or "").casefold(), deterministic=True)
    try:
        for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL"):
            db.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        db.close()
        raise
    return db


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


def unusable(error: sqlite3.Error | OSError, path: Path) -> PleinairError:
    """Return the error of a SQLite file that cannot be used, with what to do; it is always kept."""
    if isinstance(error, OSError):
        return explain(error, path)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without SQLite's extended codes
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
