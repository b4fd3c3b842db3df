"""Table of runs: each has at most one holder at a time, and one outcome.

A row is written before any work; its status decides whether a run is finished. The holder has a lease and a
fence number, and a commit with an older fence is refused: a holder that was suspended changes nothing.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self

from pleinair.agent.approval.types import Approval, ApprovalRequest
from pleinair.app.runs.database import Connection, Database
from pleinair.app.runs.owner import Owner
from pleinair.app.runs.queue import in_order, require_room
from pleinair.app.runs.row import ACCEPT, CANCEL, MEMBER, Run
from pleinair.app.runs.sqlite_file import SqliteDatabase
from pleinair.app.runs.tables import OPEN, QUEUED, RUNNING, WAITING
from pleinair.tools.types import BadInput, NotFound, Outcome, PleinairError

LEASE_SECONDS = 60.0
TICK = 1e-6  # seconds between the rows of a group, so that workers take them in their order


class Busy(PleinairError):
    """Another process works on the run."""


class LeaseLost(PleinairError):
    """Another process has taken over the run; this one commits nothing."""


class Finished(PleinairError):
    """The run has already ended."""


class Waiting(PleinairError):
    """The run waits for a person's approval."""


class Runs:
    """Table of runs in a database: the path of a SQLite file, or the URL of a Postgres database.

    It can be used from any thread and after a fork. Its connection lasts for the outermost `with` of the
    object. A method is repeated while the database is away, for half a minute at most, and writes once; a
    `transaction` is not repeated. Both raise `DatabaseAway` then.
    """

    def __init__(self, table: Path | str) -> None:
        self._database = _database_of(table)

    def __enter__(self) -> Self:
        self._database.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._database.__exit__(*error)

    def transaction(self) -> AbstractContextManager[Connection]:
        """Write in one transaction, which is undone if the block raises; also what belongs to runs."""
        return self._database.transaction()

    def readable(self) -> AbstractContextManager[Connection]:
        """Return a connection for reading, also from a home that is full or read-only."""
        return self._database.readable()

    def exists(self) -> bool:
        """Return whether there is a table."""
        return self._database.exists()

    def has_threads(self, db: Connection) -> bool:
        """Return whether the database has the table of chat threads."""
        return self._database.has_threads(db)

    def forget(self, db: Connection, run_id: str) -> None:
        """Delete a run's row, and what else the database holds of it, in a transaction."""
        db.execute("DELETE FROM runs WHERE id = ?", (run_id,))
        self._database.forget(db, run_id)

    @contextmanager
    def locked(self, name: str, seconds: float) -> Iterator[None]:
        """Acquire a lock of all processes with this table; raises `TimeoutError` after so many seconds."""
        with self._database.locked(name, seconds):
            yield

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query."""

        def read(_: bool) -> list[Any]:
            with self.readable() as db:
                return list(db.execute(query, values))

        return self._database.repeated(read)

    def add_group(
        self,
        requests: Sequence[tuple[str, int]],
        idem_key: str | None = None,
        *,
        client: str | None = None,
        most: int | None = None,
        also: Callable[[Connection, list[Run]], None] = lambda db, runs: None,
    ) -> list[Run]:
        """Write a row for each request and its seed, or return the existing rows of the key.

        The rows of a `client` are for workers, in whose queue may be `most` runs. Raises `BadInput` if the
        key belongs to another request, and `QueueFull`. The rows are written in one transaction, in which
        `also` writes what belongs to them.
        """
        now = time.time()
        ids = [_new_id(now) for _ in requests]

        def write(again: bool) -> Run | None:
            """Write the rows, unless an earlier attempt has; return the first of another request."""
            with self.transaction() as db:
                row = db.execute("SELECT * FROM runs WHERE idem_key=?", (idem_key or None,)).fetchone()
                if row or (again and db.execute("SELECT 1 FROM runs WHERE id=?", ids[:1]).fetchone()):
                    return Run.of(row) if row else None
                require_room(db, len(requests), most)
                keys = [idem_key or None, *(f"{ids[0]}{MEMBER}{number}" for number in range(2, len(ids) + 1))]
                for number, (id, (text, seed), key) in enumerate(zip(ids, requests, keys, strict=True)):
                    _insert(db, id, text, seed, key, client, now + number * TICK)
                also(db, [_row(db, id) for id in ids])
                return None

        first = self._database.repeated(write)
        if first and (changes := _differences(first.request_json, requests[0][0])):
            raise BadInput(
                f"idempotency key {idem_key!r}: used by run {first.id}, whose request is another one "
                f"({', '.join(changes)})",
                "Use another key.",
                field="idempotency_key",
            )
        return self.group(first.id if first else ids[0])

    def require_room(self, count: int, most: int | None) -> None:
        """Raise `QueueFull` unless as many more runs may wait in the workers' queue, as `add_group` does."""
        with self.readable() as db:
            require_room(db, count, most)

    def group(self, run_id: str) -> list[Run]:
        """Return the runs of one request in the order of their images; `run_id` is any of them."""
        first = self.get(run_id).group
        member = f"{first}{MEMBER}"
        query = "SELECT * FROM runs WHERE id = ? OR substr(idem_key, 1, ?) = ?"
        rows = self._rows(query, (first, len(member), member))
        return sorted(map(Run.of, rows), key=lambda run: run.seed)

    def keyed(self, idem_key: str) -> list[Run]:
        """Return the runs of the request with an idempotency key in the order of their images, [] if none."""
        rows = self._rows("SELECT id FROM runs WHERE idem_key=?", (idem_key,))
        return self.group(rows[0][0]) if rows else []

    def get(self, run_id: str) -> Run:
        """Return one row; raises `BadInput` for an unknown id."""
        return _only(self._rows("SELECT * FROM runs WHERE id=?", (run_id,)), run_id)

    def get_some(self, run_ids: Collection[str]) -> dict[str, Run]:
        """Return the rows of those runs that there are, by id."""
        places = ", ".join("?" * len(run_ids)) or "NULL"
        rows = self._rows(f"SELECT * FROM runs WHERE id IN ({places})", tuple(run_ids))
        return {run.id: run for run in map(Run.of, rows)}

    def ended(self) -> dict[str, float]:
        """Return when each run ended, in seconds since the epoch, by its id; of rows that can be read."""
        rows = self._rows("SELECT id, updated FROM runs WHERE outcome_json IS NOT NULL")
        return {id: updated for id, updated in rows if isinstance(updated, float)}

    def newest(self, limit: int, prefix: str = "") -> list[Run]:
        """Return the newest rows whose id begins with `prefix`, newest first."""
        query = "SELECT * FROM runs WHERE substr(id, 1, ?) = ? ORDER BY created DESC, id DESC LIMIT ?"
        return [Run.of(row) for row in self._rows(query, (len(prefix), prefix, limit))]

    def queue(self) -> list[Run]:
        """Return the runs that wait for a worker, in the order in which workers take them."""
        query = "SELECT * FROM runs WHERE client IS NOT NULL AND outcome_json IS NULL ORDER BY created, id"

        def read(_: bool) -> list[Run]:
            with self.readable() as db:
                runs = [run for run in map(Run.of, db.execute(query)) if run.status in (QUEUED, RUNNING)]
                return in_order(runs, db)

        return self._database.repeated(read)

    def unfinished(self) -> int:
        """Return the number of runs of clients that are queued or at work."""
        query = (
            "SELECT count(*) FROM runs WHERE client IS NOT NULL AND outcome_json IS NULL AND status IN (?, ?)"
        )
        count: int = self._rows(query, (QUEUED, RUNNING))[0][0]
        return count

    def wait(self, run_id: str, fence: int, question: ApprovalRequest) -> bool:
        """Release a run until its question is answered; return False if a person has requested its end.

        Raises `LeaseLost`.
        """
        text = question.model_dump_json()

        def write(again: bool) -> bool:
            with self.transaction() as db:
                run = _row(db, run_id)
                if again and run.fence == fence and run.status != RUNNING and run.question_json == text:
                    return True
                if run.cancel_requested:
                    return False
                _change(
                    db, run_id, fence, lease_owner=None, status=WAITING, question_json=text, answer_json=None
                )
                return True

        return self._database.repeated(write)

    def answer(self, run_id: str, question: str, answer: Approval, client: str | None = None) -> Run:
        """Write the answer to a question, by its id, so that the run can go on; raises `BadInput`.

        A run of no client becomes one of `client`, so that a worker executes it.
        """
        text = answer.model_dump_json()

        def write(again: bool) -> Run:
            with self.transaction() as db:
                run = _row(db, run_id)
                if again and run.answer_json == text and run.answer_to(question):
                    return run
                if run.question is None or run.question.id != question:
                    raise BadInput(no_question(run))
                client_now = run.client or client
                _change(db, run_id, run.fence, status=QUEUED, answer_json=text, client=client_now)
                return _row(db, run_id)

        return self._database.repeated(write)

    def hand_over(self, run_id: str, client: str, *, reopen: bool = False) -> None:
        """Queue a run for workers, in the name of `client` if it has none; one at work or waiting stays so.

        `reopen` does so with a failed one, too, and drops an earlier request to cancel. Raises `Finished`.
        """

        def write(_: bool) -> None:
            with self.transaction() as db:
                run = _row(db, run_id)
                if run.status not in OPEN and not (reopen and run.status == "failed"):
                    raise Finished(f"run {run_id} has ended: {run.status}")
                changes: dict[str, Any] = {"client": run.client or client}
                if reopen and run.status != WAITING:
                    cancel = 0 if run.cancel_requested == CANCEL else run.cancel_requested
                    changes |= {"deaths": 0, "cancel_requested": cancel}
                if run.status not in OPEN:
                    changes |= {"status": QUEUED, "outcome_json": None}
                _change(db, run_id, run.fence, **changes)

        self._database.repeated(write)

    def claim(self, run_id: str, owner: Owner, *, reopen: bool = False) -> int:
        """Lease an open run to `owner` and return the new fence.

        `reopen` also leases a failed one, and drops an earlier request to cancel, not one to accept. Raises
        `Busy` with the live holder, `Waiting` and `Finished`.
        """

        def write(again: bool) -> int:
            with self.transaction() as db:
                run = _row(db, run_id)
                if again and run.status == RUNNING and run.lease_owner == owner.model_dump_json():
                    return run.fence
                _require_free(run, reopen)
                _change(
                    db,
                    run_id,
                    run.fence,
                    status=RUNNING,
                    outcome_json=None,
                    lease_owner=owner.model_dump_json(),
                    lease_until=time.time() + LEASE_SECONDS,
                    fence=run.fence + 1,
                    cancel_requested=0 if reopen and run.cancel_requested == CANCEL else run.cancel_requested,
                    deaths=0 if reopen else run.deaths + (run.status == RUNNING),
                )
                return run.fence + 1

        return self._database.repeated(write)

    def renew(self, run_id: str, fence: int) -> None:
        """Extend the lease; raises `LeaseLost`."""
        self._update(run_id, fence, lease_until=time.time() + LEASE_SECONDS)

    def release(self, run_id: str, fence: int) -> None:
        """Release an unfinished run, so that the next holder need not wait."""

        def write(again: bool) -> None:
            with self.transaction() as db:
                run = _row(db, run_id)
                if not again or (run.fence, run.status) == (fence, RUNNING):
                    _change(db, run_id, fence, lease_owner=None, status=QUEUED)

        self._database.repeated(write)

    def commit(self, run_id: str, fence: int, outcome: Outcome) -> None:
        """Write the outcome; raises `LeaseLost` if the fence is stale."""
        text = outcome.model_dump_json()
        self._update(run_id, fence, status=outcome.ending, outcome_json=text, lease_owner=None)

    def request_cancel(self, run_id: str) -> Run:
        """Request cancellation and return the row; a finished run is not changed, a waiting one goes on."""
        return self._request(run_id, CANCEL)

    def request_accept(self, run_id: str) -> Run:
        """Request that a run ends as accepted with its best image, as `request_cancel` does."""
        return self._request(run_id, ACCEPT)

    def _request(self, run_id: str, request: int) -> Run:
        def write(_: bool) -> Run:
            with self.transaction() as db:
                run = _row(db, run_id)
                if run.status in OPEN:
                    status = QUEUED if run.status == WAITING else run.status
                    values = (request, status, time.time(), run_id)
                    db.execute("UPDATE runs SET cancel_requested=?, status=?, updated=? WHERE id=?", values)
                return _row(db, run_id)

        return self._database.repeated(write)

    def _update(self, run_id: str, fence: int, **fields: Any) -> None:
        """Change a row of which the caller has the fence; a repetition changes nothing more."""

        def write(_: bool) -> None:
            with self.transaction() as db:
                _change(db, run_id, fence, **fields)

        self._database.repeated(write)


def _database_of(table: Path | str) -> Database:
    """Return the database of a SQLite file, or of the URL of a Postgres database; connects to nothing."""
    if isinstance(table, Path):
        return SqliteDatabase(table)
    from pleinair.app.runs.postgres import postgres_of

    return postgres_of(table)


def _change(db: Connection, run_id: str, fence: int, /, **fields: Any) -> None:
    columns = ", ".join(f"{name}=?" for name in fields)
    values = (*fields.values(), time.time(), run_id, fence)
    cursor = db.execute(f"UPDATE runs SET {columns}, updated=? WHERE id=? AND fence=?", values)
    if cursor.rowcount != 1:
        raise LeaseLost(f"run {run_id} has been taken over by another process")


def _row(db: Connection, run_id: str) -> Run:
    return _only(db.execute("SELECT * FROM runs WHERE id=?", (run_id,)).fetchall(), run_id)


def _only(rows: Sequence[Any], run_id: str) -> Run:
    if not rows:
        raise NotFound(f"run {run_id!r}: there is none", "`pleinair runs list` shows them.")
    return Run.of(rows[0])


def _require_free(run: Run, reopen: bool) -> None:
    """Raise an error for a run that cannot be leased."""
    run.require_intact()
    if run.status == WAITING:
        raise Waiting(f"run {run.id} waits for your approval")
    if run.status not in (QUEUED, RUNNING, "failed" if reopen else RUNNING):
        raise Finished(f"run {run.id} has ended: {run.status}")
    if holder := run.owner:
        until = time.strftime("%H:%M:%S", time.localtime(run.lease_until))
        raise Busy(f"run {run.id} is being worked on by {holder}, at least until {until}")


def _new_id(now: float) -> str:
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime(now)) + secrets.token_hex(4)


def _insert(
    db: Connection,
    run_id: str,
    request_json: str,
    seed: int,
    key: str | None,
    client: str | None,
    created: float,
) -> None:
    request = json.loads(request_json)
    listed = (
        str(request.get("prompt", "")).casefold(),
        str(request.get("graph", "")),
        str(request.get("settings", {}).get("profile", "")),
    )
    db.execute(
        "INSERT INTO runs (id, idem_key, order_json, seed, status, created, updated, client, "
        "words, graph, profile) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (run_id, key, request_json, seed, QUEUED, created, created, client, *listed),
    )


def no_question(run: Run) -> str:
    """Return why a run's question cannot be answered."""
    if run.status in OPEN and run.answer_json:
        return f"run {run.id}: its question has been answered already"
    return f"run {run.id}: it waits for no approval (status: {run.status})"


def _differences(stored: str, requested: str) -> list[str]:
    before, after = json.loads(stored), json.loads(requested)
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
