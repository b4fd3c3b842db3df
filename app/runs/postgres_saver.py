"""LangGraph checkpoints of runs in a Postgres database, written by the holder of a run only.

LangGraph's saver stores the channels of a state; what it writes, the items of `ItemSerializer` and the check
of the holder's fence are one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.postgres import PostgresSaver

from pleinair.app.runs.items import ItemSerializer
from pleinair.app.runs.postgres import postgres_of, storable
from pleinair.app.runs.store import LeaseLost
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

HELD = "SELECT 1 FROM runs WHERE id = %s AND fence = %s AND status = 'running' FOR SHARE"
INSERT = "INSERT INTO items (thread_id, hash, value) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
SELECT = "SELECT value FROM items WHERE thread_id = %s AND hash = %s"


class FencedPostgresSaver(PostgresSaver):  # type: ignore[misc]
    """Saver of one run: `guard` is called before each write, whose transaction checks the fence.

    A call is repeated while the database is away; each of them can be, since a repetition writes the same.

    Args:
        url: of the database.
        run_id: the thread of LangGraph.
        guard: raises if another process holds the run; None: the checkpoints are only read.
        fence: of the holder.
    """

    def __init__(self, url: str, run_id: str, guard: Callable[[], object] | None, fence: int) -> None:
        self._items = ItemSerializer(self._read_item)
        super().__init__(None, serde=self._items)
        self._database, self._run_id = postgres_of(url), run_id
        self._guard, self._fence = guard, fence
        # the connection of the call that is going on, if any; in a list, which the copy of this saver that
        # LangGraph works with shares: the serializer reads items by this one
        self._lent: list[psycopg.Connection[Any]] = []

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Load a checkpoint; raise `BadInput` for a damaged one."""
        load: Callable[[RunnableConfig], CheckpointTuple | None] = super().get_tuple
        with self._naming_damage():
            return self._repeated(lambda: load(config))

    def list(self, config: RunnableConfig | None, **options: Any) -> Iterator[CheckpointTuple]:
        """Load checkpoints, newest first; raise as `get_tuple` does."""
        load = super().list
        with self._naming_damage():
            tuples = self._repeated(lambda: [*load(config, **options)])  # the saver is free again
        yield from tuples

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a checkpoint."""
        values = {name: storable(value) for name, value in checkpoint["channel_values"].items()}
        stored = {**checkpoint, "channel_values": values}
        save: Callable[..., RunnableConfig] = super().put
        return self._repeated(lambda: save(config, stored, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Save what a task has written."""
        save = super().put_writes
        self._repeated(lambda: save(config, writes, task_id, task_path))

    def _repeated(self, action: Callable[[], T]) -> T:
        return self._database.repeated(lambda _: action())

    @contextmanager
    def _cursor(self, *, pipeline: bool = False) -> Iterator[Any]:
        """Yield a cursor in a transaction; `pipeline` says that it is for writing."""
        from psycopg.rows import dict_row

        if pipeline:
            assert self._guard, "the checkpoints are open for reading"
            self._guard()
        items: dict[bytes, bytes] = {}
        with self.lock, self._database.lent() as lent, lent.transaction():
            if pipeline and not lent.execute(HELD, (self._run_id, self._fence)).fetchone():
                raise LeaseLost(f"run {self._run_id} has been taken over by another process")
            self._lent.append(lent)
            try:
                with lent.cursor(binary=True, row_factory=dict_row) as cursor:
                    yield cursor
                    if pipeline:
                        items = dict(self._items.unsaved)
                        cursor.executemany(INSERT, [(self._run_id, *item) for item in items.items()])
            finally:
                self._lent.clear()
        self._items.saved(items)  # committed

    def _read_item(self, key: bytes) -> bytes:
        (lent,) = self._lent  # items are read while their checkpoint is
        row = lent.execute(SELECT, (self._run_id, key), binary=True).fetchone()
        if row is None:
            raise LookupError(f"item {key.hex()} is missing")
        return bytes(row[0])

    @contextmanager
    def _naming_damage(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, LookupError) as error:  # of msgpack and JSON
            text = f"the checkpoints of run {self._run_id} are damaged: {type(error).__name__}: {error}"
            raise BadInput(text) from error


def has_checkpoint(url: str, run_id: str) -> bool:
    """Return whether a run has a checkpoint."""
    database = postgres_of(url)

    def read(_: bool) -> bool:
        with database.readable() as db:
            query = "SELECT 1 FROM checkpoints WHERE thread_id = ? LIMIT 1"
            return db.execute(query, (run_id,)).fetchone() is not None

    return database.repeated(read)
