"""LangGraph checkpoints of a run: a SQLite file in its folder, or rows of a Postgres database.

They are plain data, written by the holder of the run only.
"""

from __future__ import annotations

import os
import sqlite3

# LangGraph reads this at its first import; `ItemSerializer` is strict even after it
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph.state import CompiledStateGraph, StateGraph

from pleinair.app.paths import Paths
from pleinair.app.runs.items import INSERT, SELECT, TABLE, ItemSerializer
from pleinair.app.runs.sqlite_file import connect, connect_read_only, unusable
from pleinair.tools.registry import resolve
from pleinair.tools.types import BadInput

Graph = CompiledStateGraph[Any, Any, Any, Any]
Saver = BaseCheckpointSaver[Any]


class FencedSaver(SqliteSaver):
    """Saver that calls `guard` before each write, so that a holder that lost its lease writes nothing."""

    def __init__(self, path: Path, guard: Callable[[], object] | None) -> None:
        connection = connect(path) if guard else connect_read_only(path)
        connection.row_factory = None
        # the writes of a task must be atomic, so the saver opens its own transactions
        connection.isolation_level = "DEFERRED"
        self._items = ItemSerializer(self._read_item)
        super().__init__(connection, serde=self._items)
        self._guard, self._path = guard or _refuse_to_write, path
        self.is_setup = guard is None  # there is nothing to create

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Load a checkpoint; raise `BadInput` for a damaged one."""
        with self._naming_damage():
            return super().get_tuple(config)

    def list(self, config: RunnableConfig | None, **options: Any) -> Iterator[CheckpointTuple]:
        """Load checkpoints, newest first; raise as `get_tuple` does."""
        with self._naming_damage():
            yield from super().list(config, **options)

    @contextmanager
    def _naming_damage(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, LookupError) as error:  # of msgpack and JSON
            raise BadInput(f"{self._path} is damaged: {type(error).__name__}: {error}") from error

    def setup(self) -> None:
        """Create the tables that are missing."""
        if not self.is_setup:
            self.conn.execute(TABLE)
        super().setup()

    @contextmanager
    def cursor(self, transaction: bool = True) -> Iterator[sqlite3.Cursor]:
        """Yield a cursor; `transaction` says that it is for writing."""
        if transaction:
            self._guard()
        items: dict[bytes, bytes] = {}
        with super().cursor(transaction) as cursor:
            yield cursor
            if transaction:
                items = dict(self._items.unsaved)
                try:
                    cursor.executemany(INSERT, items.items())
                except sqlite3.Error:
                    self.conn.rollback()  # no value without its items
                    raise
        self._items.saved(items)  # committed

    def _read_item(self, key: bytes) -> bytes:
        row = self.conn.execute(SELECT, (key,)).fetchone()
        if row is None:
            raise LookupError(f"item {key.hex()} is missing")
        return bytes(row[0])


def _refuse_to_write() -> None:
    raise AssertionError("the checkpoints are open for reading")


def has_begun(places: Paths, run_id: str) -> bool:
    """Return whether a run has checkpoints."""
    if places.database:
        from pleinair.app.runs.postgres_saver import has_checkpoint

        return has_checkpoint(places.database, run_id)
    return _file(places, run_id).exists()


@contextmanager
def open_saver(
    places: Paths, run_id: str, guard: Callable[[], object] | None = None, fence: int = 0
) -> Iterator[Saver]:
    """Yield the saver of a run; `guard` raises if another process holds the run, None opens it for reading.

    The rows of a database are written with the `fence` of the holder. Raises `BadInput` for a damaged file,
    or one of another program, `DiskFull` and `DatabaseAway`.
    """
    if places.database:
        from pleinair.app.runs.postgres_saver import FencedPostgresSaver

        yield FencedPostgresSaver(places.database, run_id, guard, fence)
        return
    with open_file(_file(places, run_id), guard) as saver:
        yield saver


def _file(places: Paths, run_id: str) -> Path:
    return places.run(run_id) / "checkpoints.sqlite"


@contextmanager
def open_file(path: Path, guard: Callable[[], object] | None = None) -> Iterator[FencedSaver]:
    """Yield the saver of a SQLite file; arguments and errors as of `open_saver`."""
    try:
        saver = FencedSaver(path, guard)
        try:
            yield saver
        finally:
            # the thread of an interrupted step may still be saving; closing the connection then crashes
            with saver.lock:
                saver.conn.close()
    except sqlite3.Error as error:
        raise unusable(error, path) from error


def compiled(name: str, saver: Saver) -> Graph:
    """Compile a graph of the registry with a checkpointer."""
    # not by the builder's own method: the request has been validated
    graph: Graph = StateGraph.compile(resolve("graph", name).builder, checkpointer=saver, name=name)
    return graph
