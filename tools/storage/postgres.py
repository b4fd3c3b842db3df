"""Connections to a Postgres database: a few for each address and process, and its errors as ours.

The packages are imported when a connection is made, so a program without a database needs none of them. A
connection is checked before it is lent, so one that a server has closed is replaced; what is lost in the
middle of a transaction raises `DatabaseAway`, and nothing here repeats it: only the caller knows whether that
is safe. psycopg_pool is not used: it connects in threads of its own at growing intervals, so in a test it was
usable some 7 s after the server was, its error did not say why, and its threads do not survive a fork.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pleinair.tools.callbacks import no_callback
from pleinair.tools.storage.away import Away
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from psycopg import Connection

T = TypeVar("T")

REMEDY = "Run `pip install 'pleinair[cluster]'`."
BUSY = 10.0  # seconds to wait for a connection that another thread uses
OUTAGE = 30.0  # seconds that an outage may last before what it interrupts fails
_MOST = 4  # connections of a process to one address
_SCHEMES = ("postgresql", "postgres")
# A process that stops while it holds a lock must not hold up all others.
_SESSION = {
    "lock_timeout": "10s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "15s",
}
_DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "30",
    "tcp_user_timeout": "10000",  # milliseconds
    "application_name": "pleinair",
    "options": " ".join(f"-c {name}={value}" for name, value in _SESSION.items()),
}
_PASSING = ("08", "40", "53", "55", "57")  # classes of SQLSTATE that may pass by themselves
_DISK_FULL = "53100"


class DatabaseAway(Away):
    """The database cannot be reached, or the connection was lost; a change may or may not be stored."""


def require_postgres() -> None:
    """Raise `PleinairError` with what to install if the package for Postgres is missing."""
    if find_spec("psycopg") is None:
        raise PleinairError("A Postgres database needs the package `psycopg`.", REMEDY)


def check_address(address: str, key: str) -> None:
    """Raise `BadInput` for an address of the setting `key` that is not one of Postgres; asks no server."""
    accepted = "accepted: postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    if address.partition("://")[0] not in _SCHEMES:
        raise BadInput(f"{key} = {without_password(address)!r}: not an address of Postgres; {accepted}")
    require_postgres()
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(address)
    except ProgrammingError as error:
        reason = str(error).strip()
        raise BadInput(f"{key} = {without_password(address)!r}: {reason}; {accepted}") from None


def without_password(address: str) -> str:
    """Return an address for messages: without its password and parameters."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "postgresql://…"
    if not parts.netloc:  # no URL
        return "…" if "password" in address.casefold() else address
    user, _, host = parts.netloc.rpartition("@")
    login = f"{user.partition(':')[0]}@" if user else ""
    return f"{parts.scheme}://{login}{host}{parts.path}"


@contextmanager
def connection(address: str) -> Iterator[Connection[Any]]:
    """Lend a connection in autocommit mode, whose statements end after 30 s and whose locks after 10 s.

    What is set in it for the session stays set for the next borrower; use `SET LOCAL` in a transaction.

    Raises:
        DatabaseAway: the server does not answer, was lost meanwhile, or all connections of this process are
            in use for so long.
        PleinairError: another error of the database, such as a full disk or a missing table.
    """
    with _explaining(address):
        with _POOLS_LOCK:
            pool = _POOLS.setdefault(address, _Pool(address))
        with pool.lend() as lent:
            yield lent


@contextmanager
def open_session(address: str) -> Iterator[Connection[Any]]:
    """Open a connection of its own, such as for a session's lock; errors as of `connection`."""
    with _explaining(address), _connect(address) as session:
        yield session


@contextmanager
def _explaining(address: str) -> Iterator[None]:
    """Raise errors of psycopg in the block as errors of this program."""
    require_postgres()
    from psycopg import Error

    try:
        yield
    except Error as error:
        raise _explained(error, address) from error


def _connect(address: str) -> Connection[Any]:
    import psycopg

    return psycopg.connect(**_parameters(address), autocommit=True, prepare_threshold=None)


def close_connections() -> None:
    """Close the connections of this process that are not in use; the next use makes new ones."""
    with _POOLS_LOCK:
        pools = [*_POOLS.values()]
        _POOLS.clear()
    for pool in pools:
        pool.close()


def repeated(action: Callable[[], T], seconds: float = OUTAGE, check: Callable[[], None] = no_callback) -> T:
    """Return what an action returns, repeated while the database is away, for so many seconds at most.

    The action must be safe to repeat: one that only reads, or that recognises its own earlier success.
    `check` is called before each repetition and may raise to stop.
    """
    end, pause = time.monotonic() + seconds, 0.1
    while True:
        try:
            return action()
        except DatabaseAway:
            if time.monotonic() + pause > end:
                raise
        check()
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def _explained(error: Exception, address: str) -> PleinairError:
    """Return an error of psycopg as one of this program, with what the server said and without a password."""
    from psycopg import InterfaceError, OperationalError

    text = " ".join(str(error).split()) or type(error).__name__
    where = without_password(address)
    code = getattr(error, "sqlstate", None) or ""
    if code == _DISK_FULL:
        return PleinairError(f"The disk of the database {where} is full: {text}.")
    if isinstance(error, OperationalError | InterfaceError) and (not code or code.startswith(_PASSING)):
        remedy = "Check its address, that the server runs and that its user may connect."
        return DatabaseAway(f"The database {where} cannot be used: {text}.", remedy)
    return PleinairError(f"The database {where} refused a statement: {text}.")


class _Pool:
    """Connections to one address that threads of this process borrow, the last returned first."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._idle: list[Connection[Any]] = []
        self._slots = BoundedSemaphore(_MOST)

    @contextmanager
    def lend(self) -> Iterator[Connection[Any]]:
        """Lend a connection that answers; raise `psycopg.Error` if none can be made."""
        if not self._slots.acquire(timeout=BUSY):
            where = without_password(self._address)
            raise DatabaseAway(f"All {_MOST} connections of this process to {where} are in use.")
        try:
            lent = self._checked() or _connect(self._address)
            try:
                yield lent
            finally:
                self._take_back(lent)
        finally:
            self._slots.release()

    def close(self) -> None:
        """Close the connections that are not lent."""
        while self._idle:
            self._idle.pop().close()

    def _checked(self) -> Connection[Any] | None:
        """Return an idle connection that answers; the others are closed."""
        from psycopg import Error

        while self._idle:
            with suppress(IndexError):  # another thread has taken the last one
                lent = self._idle.pop()
                try:
                    lent.execute("")
                except Error:
                    lent.close()
                else:
                    return lent
        return None

    def _take_back(self, lent: Connection[Any]) -> None:
        from psycopg.pq import TransactionStatus

        if lent.pgconn.transaction_status == TransactionStatus.IDLE:  # in no transaction, and not lost
            self._idle.append(lent)
        else:
            lent.close()


def _parameters(address: str) -> dict[str, Any]:
    """Return the parameters of a connection; those of the address count over the defaults."""
    from psycopg.conninfo import conninfo_to_dict

    return {**_DEFAULTS, **conninfo_to_dict(address)}


_POOLS: dict[str, _Pool] = {}
_POOLS_LOCK = Lock()
_INHERITED: list[object] = []


def _after_fork() -> None:
    """Leave the parent's connections alone in a child process: closed there, they would end for both."""
    global _POOLS_LOCK
    _POOLS_LOCK = Lock()
    _INHERITED.append(dict(_POOLS))
    _POOLS.clear()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(close_connections)
