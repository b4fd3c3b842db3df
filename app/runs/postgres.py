"""Postgres database of the runs, which any number of machines share.

Every transaction that changes the run table takes one lock of the database first, as SQLite does by itself,
so the checks and writes of `Runs` mean the same in both. What a holder writes of its run, events and
checkpoints, takes no such lock: the row of the run is locked by the statement that checks its fence.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pleinair.app.runs.database import Connection
from pleinair.app.runs.tables import MIGRATIONS, POSTGRES, SCHEMA
from pleinair.tools.storage.postgres import (
    OUTAGE,
    DatabaseAway,
    connection,
    open_session,
    repeated,
    without_password,
)
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

CHANGE = 0x706C_6569  # number of the lock of changes
PREPARE = "tables of pleinair"  # name of the lock of who makes them
PREPARE_SECONDS = 120.0
POLL = 0.05  # seconds between two tries to get a lock by its name
MOST_SKEW = 5.0  # seconds between the clocks of a machine and of the database; a lease lasts 60
CHECKPOINTS = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "items")  # by the id of a run


class Row(Sequence[Any]):
    """Row with names and numbers, as SQLite's."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: Sequence[str], values: Sequence[Any]) -> None:
        self._names, self._values = names, values

    def keys(self) -> Sequence[str]:
        """Return the names of the columns."""
        return self._names

    def __getitem__(self, key: Any) -> Any:
        return self._values[self._names.index(key) if isinstance(key, str) else key]

    def __len__(self) -> int:
        return len(self._values)


def _rows(cursor: Any) -> Callable[[Sequence[Any]], Row]:
    """Return how psycopg makes the rows of a cursor."""
    names = [column.name for column in cursor.description or ()]
    return lambda values: Row(names, values)


class _Statements:
    """Connection of psycopg that takes SQLite's statements."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Any:
        """Execute one statement with `?` for its values; characters that Postgres has not are replaced."""
        cursor = self._connection.cursor(row_factory=_rows)
        return cursor.execute(_translated(query), [storable(value) for value in values])


@lru_cache(maxsize=500)
def _translated(query: str) -> str:
    return query.replace("%", "%%").replace("?", "%s")


def storable(value: Any) -> Any:
    """Return a value; of a text, neither NUL nor half of a surrogate pair, which Postgres refuses."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


class PostgresDatabase:
    """Database at a URL; a pool of connections that lasts as long as the process."""

    def __init__(self, url: str) -> None:
        self._url, self._lock = url, Lock()
        self._pid = 0  # of the process that has checked the tables
        self._away_since: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Write in one transaction, while no other process changes the run table."""
        with self.changing() as db:
            db.execute("SELECT pg_advisory_xact_lock(?)", (CHANGE,))
            yield db

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """Write in one transaction beside those of others."""
        with self.lent() as lent, lent.transaction():
            yield _Statements(lent)

    @contextmanager
    def readable(self) -> Iterator[Connection]:
        """Return a connection for reading."""
        with self.lent() as lent:
            yield _Statements(lent)

    @contextmanager
    def lent(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend a connection of psycopg, once the tables are there; errors as of `postgres.connection`."""
        if self._pid != os.getpid():
            self._prepare()
        with connection(self._url) as lent:
            yield lent

    def repeated(self, action: Callable[[bool], T]) -> T:
        """Return what an action returns, repeated while the database is away, for `OUTAGE` seconds.

        They count from the first failure of this process, so that an outage delays it once. A process that
        has not reached the database yet does not wait for it.
        """
        attempts = count()

        def attempt() -> T:
            try:
                result = action(next(attempts) > 0)
            except DatabaseAway:
                self._away_since = self._away_since or time.monotonic()
                raise
            self._away_since = None
            return result

        since = self._away_since
        left = OUTAGE if since is None else since + OUTAGE - time.monotonic()
        return repeated(attempt, left if self._pid == os.getpid() else 0.0)

    @contextmanager
    def locked(self, name: str, seconds: float) -> Iterator[None]:
        """Acquire a lock of the database on a connection of its own; one that is lost releases it."""
        with open_session(self._url) as session:
            self._lock_session(session, name, seconds)
            yield

    def _lock_session(self, session: psycopg.Connection[Any], name: str, seconds: float) -> None:
        """Lock a name until the session ends; nobody waits in a statement, for which others had to wait."""
        end, query = time.monotonic() + seconds, "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
        while not (session.execute(query, (name,)).fetchone() or (False,))[0]:
            if time.monotonic() > end:
                raise TimeoutError(name)
            time.sleep(POLL)

    def exists(self) -> bool:
        """Return that there is something to read: the tables are made at the first use."""
        return True

    def has_threads(self, db: Connection) -> bool:
        """Return that it has the table of chat threads."""
        return True

    def forget(self, db: Connection, run_id: str) -> None:
        """Delete the events and checkpoints of a run."""
        db.execute("DELETE FROM events WHERE run = ?", (run_id,))
        for table in CHECKPOINTS:
            db.execute(f"DELETE FROM {table} WHERE thread_id = ?", (run_id,))

    def _prepare(self) -> None:
        """Check the database, and make or migrate its tables; one process of all does so at a time.

        Raises:
            DatabaseAway: it does not answer.
            BadInput: its tables are of a newer version, its encoding is not UTF-8, or its clock differs.
        """
        with self._lock:
            if self._pid == os.getpid():
                return
            with open_session(self._url) as session:
                self._require_clock(session)
                if _version(session) != SCHEMA:
                    self._lock_tables(session)
                    self._migrate(session)
            self._pid = os.getpid()

    def _lock_tables(self, session: psycopg.Connection[Any]) -> None:
        try:
            self._lock_session(session, PREPARE, PREPARE_SECONDS)
        except TimeoutError as error:
            text = (
                f"Another process has been changing the tables of {without_password(self._url)} for minutes."
            )
            raise PleinairError(text, "Try again, or end that process.") from error

    def _require_clock(self, session: psycopg.Connection[Any]) -> None:
        query = "SELECT extract(epoch FROM clock_timestamp())::float8, current_setting('server_encoding')"
        before = time.time()
        now, encoding = session.execute(query).fetchone() or (0.0, "")
        skew = max(before - now, now - time.time())
        where = f"the database {without_password(self._url)}"
        if skew > MOST_SKEW:
            raise BadInput(
                f"The clock of this machine and that of {where} differ by {skew:.0f} s; accepted: "
                f"{MOST_SKEW:.0f} s.",
                "Leases depend on it: synchronize both, such as by NTP.",
            )
        if encoding != "UTF8":
            raise BadInput(f"{where} has the encoding {encoding}; it must be UTF8")

    def _migrate(self, session: psycopg.Connection[Any]) -> None:
        version = _version(session)
        if version > SCHEMA:
            raise BadInput(
                f"The database {without_password(self._url)} was written by a newer pleinair (schema "
                f"{version}, this one reads {SCHEMA}).",
                "Update pleinair on this machine, or use another database.",
            )
        steps = [step for at in range(version, SCHEMA) for step in MIGRATIONS[at]] if version else POSTGRES
        if not version:
            _set_up_checkpoints(session)  # in transactions of its own, repeated where it was interrupted
        with session.transaction():
            for step in steps:
                session.execute(step)
            session.execute("DELETE FROM pleinair_schema")
            session.execute("INSERT INTO pleinair_schema VALUES (%s)", (SCHEMA,))


def _version(session: psycopg.Connection[Any]) -> int:
    """Return the schema of the tables, 0 if there are none."""
    if (session.execute("SELECT to_regclass('pleinair_schema')").fetchone() or (None,))[0] is None:
        return 0
    (version,) = session.execute("SELECT version FROM pleinair_schema").fetchone() or (0,)
    return int(version)


def _set_up_checkpoints(session: psycopg.Connection[Any]) -> None:
    """Create or migrate the tables of LangGraph's saver."""
    from langgraph.checkpoint.postgres import PostgresSaver
    from psycopg.rows import dict_row

    session.row_factory, before = dict_row, session.row_factory
    PostgresSaver(session).setup()
    session.row_factory = before


@cache
def postgres_of(url: str) -> PostgresDatabase:
    """Return the database of a URL, the same object for the whole process; connects to nothing."""
    return PostgresDatabase(url)
