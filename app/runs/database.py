"""What the run table needs of a database; SQLite and Postgres offer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self, TypeVar

T = TypeVar("T")


class Connection(Protocol):
    """Connection to a database: statements with `?`, and rows with names and numbers."""

    def execute(self, query: str, values: Sequence[Any] = ..., /) -> Any:
        """Execute one statement and return its cursor."""


class Database(Protocol):
    """Database of the runs; usable from any thread and after a fork. Its connections last for the `with`."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def transaction(self) -> AbstractContextManager[Connection]:
        """Write in one transaction, which is undone if the block raises; all others wait for it."""

    def readable(self) -> AbstractContextManager[Connection]:
        """Return a connection for reading."""

    def repeated(self, action: Callable[[bool], T]) -> T:
        """Return what an action returns, repeated while the database is away, for a while.

        The action receives whether an earlier attempt may have been stored.
        """

    def locked(self, name: str, seconds: float) -> AbstractContextManager[None]:
        """Acquire a lock of all processes with this database; raises `TimeoutError`."""

    def exists(self) -> bool:
        """Return whether there is anything to read."""

    def has_threads(self, db: Connection) -> bool:
        """Return whether it has the table of chat threads."""

    def forget(self, db: Connection, run_id: str) -> None:
        """Delete what the database holds of a run besides its row."""
