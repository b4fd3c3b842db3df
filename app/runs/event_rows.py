"""Event log of a run in a Postgres database: a row an event, written by the holder of the run only."""

from __future__ import annotations

from dataclasses import dataclass

from pleinair.app.runs.store import LeaseLost
from pleinair.tools.types import PleinairError

# in one statement, so that the row of the run cannot change before the event is stored
APPEND = (
    "WITH holder AS (SELECT 1 FROM runs WHERE id = ? AND fence = ? AND status = 'running' FOR SHARE) "
    "INSERT INTO events (run, seq, line) SELECT ?, ?, ? FROM holder ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True)
class EventRows:
    """The log of one run, in the database of a URL; what it reads is as the file of a home has it."""

    database: str
    run_id: str

    def read_bytes(self, after: int = -1) -> bytes:
        """Return the lines of the events after a number."""
        from pleinair.app.runs.postgres import postgres_of

        database = postgres_of(self.database)

        def read(_: bool) -> list[str]:
            query = "SELECT line FROM events WHERE run = ? AND seq > ? ORDER BY seq"
            with database.readable() as db:
                return [line for (line,) in db.execute(query, (self.run_id, after))]

        return b"".join(line.encode() + b"\n" for line in database.repeated(read))

    def stamp(self) -> int | None:
        """Return the number of the last event, which changes with every event; None if there is none."""
        from pleinair.app.runs.postgres import postgres_of

        database = postgres_of(self.database)

        def read(_: bool) -> int | None:
            with database.readable() as db:
                (last,) = db.execute("SELECT max(seq) FROM events WHERE run = ?", (self.run_id,)).fetchone()
                return None if last is None else int(last)

        return database.repeated(read)

    def __str__(self) -> str:
        return f"the events of run {self.run_id}"


class EventTable:
    """Writer of a log, for the holder with a fence."""

    def __init__(self, rows: EventRows, fence: int) -> None:
        from pleinair.app.runs.postgres import postgres_of

        self._rows, self._fence, self._is_open = rows, fence, True
        self._database = postgres_of(rows.database)
        last = rows.stamp()
        self.count = 0 if last is None else last + 1

    def append(self, line: bytes, *, durable: bool) -> None:
        """Append a line; also one that need not be `durable` is, so that no later one outlives it.

        Raises `LeaseLost`, and `DatabaseAway` where the database does not come back.
        """
        if not self._is_open:
            raise PleinairError(f"{self._rows} are closed")
        run, text = self._rows.run_id, line.decode()

        def write(again: bool) -> None:
            with self._database.changing() as db:
                values = (run, self._fence, run, self.count, text)
                if not db.execute(APPEND, values).rowcount and not (again and self._is_stored(text)):
                    raise LeaseLost(f"run {run} has been taken over by another process")

        self._database.repeated(write)
        self.count += 1

    def _is_stored(self, text: str) -> bool:
        """Return whether an attempt whose success is not certain has stored the line."""
        return self._rows.read_bytes(self.count - 1) == text.encode() + b"\n"

    def close(self) -> None:
        """Refuse all further events."""
        self._is_open = False
