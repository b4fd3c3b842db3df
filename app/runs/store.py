"""Table of runs: each has at most one holder at a time, and one outcome.

A row is written before any work; its status decides whether a run is finished. The holder has a lease and a
fence number, and a commit with an older fence is refused: a holder that was suspended changes nothing.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import ValidationError

from pleinair.agent.approval.types import Approval, ApprovalRequest
from pleinair.app.runs.database import connect, connect_read_only, unusable
from pleinair.app.runs.owner import Owner
from pleinair.app.runs.queue import in_order, require_room
from pleinair.app.runs.tables import LISTED, OPEN, QUEUED, RUNNING, WAITING, prepare
from pleinair.tools.types import BadInput, Ending, NotFound, Outcome, PleinairError

LEASE_SECONDS = 60.0
CANCEL, ACCEPT = 1, 2  # what a person requested of an open run, in `cancel_requested`
DAMAGED = "damaged"  # status of a row that cannot be read
MEMBER = "#image-"  # in the keys of a group's later runs: id of the first, this, number
_NUMBERS = ("seed", "lease_until", "fence", "cancel_requested", "created", "updated")
COLUMNS = {"order_json": "request_json"}  # names of version 0.1


class Busy(PleinairError):
    """Another process works on the run."""


class LeaseLost(PleinairError):
    """Another process has taken over the run; this one commits nothing."""


class Finished(PleinairError):
    """The run has already ended."""


class Waiting(PleinairError):
    """The run waits for a person's approval."""


@dataclass(frozen=True)
class Run:
    """Row of the table: the request, the status, the lease, the outcome."""

    id: str
    idem_key: str | None
    request_json: str  # column `order_json`
    seed: int
    status: str
    lease_owner: str | None
    lease_until: float
    fence: int
    cancel_requested: int  # 0, or how a person wants it to end
    outcome_json: str | None
    created: float
    updated: float
    client: str | None = None  # who queued it for a worker; None: its process executes it
    question_json: str | None = None  # of the approval that it waits for
    answer_json: str | None = None
    deaths: int = 0  # of its processes
    damage: str = ""  # the first column that cannot be read

    @classmethod
    def of(cls, row: sqlite3.Row) -> Run:
        """Convert a row; version 0.1 stored `stopped` for runs that are now `unchecked`.

        A row that cannot be read has the status `damaged` and, in place of that column, nothing.
        """
        values = {COLUMNS.get(name, name): value for name, value in dict(row).items() if name not in LISTED}
        run = cls(**values)
        if damage := _damaged_column(run):
            unreadable = [name for name in _NUMBERS if not isinstance(values[name], int | float)]
            nothing: dict[str, Any] = {"request_json": "", "outcome_json": None, "lease_owner": None}
            nothing |= dict.fromkeys(unreadable, 0)
            return replace(run, status=DAMAGED, damage=damage, **nothing)
        if run.status == WAITING and run.question_json is None:  # of schema 1, on a read-only disk
            return replace(run, status=QUEUED)
        outcome = run.outcome if run.status == "stopped" else None
        return replace(run, status=outcome.ending) if outcome else run

    def require_intact(self) -> None:
        """Raise `BadInput` for a damaged row."""
        if self.damage:
            raise BadInput(
                f"run {self.id}: its row in the run table is damaged ({self.damage})",
                "Its events and images are in its folder; all other runs work.",
            )

    @property
    def outcome(self) -> Outcome | None:
        """The outcome, None before the end."""
        return Outcome.model_validate_json(self.outcome_json) if self.outcome_json else None

    @property
    def question(self) -> ApprovalRequest | None:
        """The approval that the run waits for, None if it waits for none."""
        return self._question if self.status == WAITING else None

    def answer_to(self, interrupt: str) -> Approval | None:
        """Return the answer to the question of an interrupt, None if it has not been answered."""
        is_answered = self._question and self._question.id == interrupt and self.answer_json
        return Approval.model_validate_json(is_answered) if is_answered else None

    @property
    def _question(self) -> ApprovalRequest | None:
        """The last question, answered or not."""
        return ApprovalRequest.model_validate_json(self.question_json) if self.question_json else None

    @property
    def group(self) -> str:
        """The id of the first run of the same request; the run's own for a single image."""
        first, member, _ = (self.idem_key or "").partition(MEMBER)
        return first if member and len(first) == len(self.id) else self.id

    @property
    def owner(self) -> Owner | None:
        """The holder, None if there is none or it is known to be dead."""
        if self.lease_owner is None or self.lease_until < time.time():
            return None
        try:
            owner = Owner.model_validate_json(self.lease_owner)
        except ValidationError:
            return None  # nobody that this version could ask
        return None if owner.dead() else owner


def _damaged_column(run: Run) -> str:
    """Return the first column of a row that cannot be read, "" if all can."""
    for name in _NUMBERS:
        if not isinstance(getattr(run, name), int | float):
            return name
    try:
        is_object = isinstance(json.loads(run.request_json), dict)
    except (ValueError, TypeError, RecursionError):
        is_object = False
    if not is_object:
        return "order_json"
    if run.status not in (*OPEN, *get_args(Ending)):
        return "status"
    try:
        ended = run.outcome is not None
    except ValidationError:
        return "outcome_json"
    return "" if ended or run.status in OPEN else "outcome_json"


class Runs:
    """Table of runs in a SQLite file; usable from any thread and after a fork.

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
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write in one transaction, which is undone if the block raises; also what belongs to runs."""
        with self._connected(self._open) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def readable(self) -> AbstractContextManager[sqlite3.Connection]:
        """Return a connection for reading, also from a home that is full or read-only."""
        return self._connected(self._open_readable)

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

    def add_group(
        self,
        requests: Sequence[tuple[str, int]],
        idem_key: str | None = None,
        *,
        client: str | None = None,
        most: int | None = None,
        also: Callable[[sqlite3.Connection, list[Run]], None] = lambda db, runs: None,
    ) -> list[Run]:
        """Write a row for each request and its seed, or return the existing rows of the key.

        The rows of a `client` are for workers, in whose queue may be `most` runs. Raises `BadInput` if the
        key belongs to another request, and `QueueFull`. The rows are written in one transaction, in which
        `also` writes what belongs to them.
        """
        with self.transaction() as db:
            row = db.execute("SELECT * FROM runs WHERE idem_key=?", (idem_key or None,)).fetchone()
            if row is None:
                require_room(db, len(requests), most)
                (text, seed), *others = requests
                runs = [self._insert(db, text, seed, idem_key, client)]
                for number, (text, seed) in enumerate(others, start=2):
                    runs.append(self._insert(db, text, seed, f"{runs[0].id}{MEMBER}{number}", client))
                also(db, runs)
                return runs
            first = Run.of(row)
        if changes := _differences(first.request_json, requests[0][0]):
            raise BadInput(
                f"idempotency key {idem_key!r}: used by run {first.id}, whose request is another one "
                f"({', '.join(changes)})",
                "Use another key.",
                field="idempotency_key",
            )
        return self.group(first.id)

    def require_room(self, count: int, most: int | None) -> None:
        """Raise `QueueFull` unless as many more runs may wait in the workers' queue, as `add_group` does."""
        with self.readable() as db:
            require_room(db, count, most)

    def group(self, run_id: str) -> list[Run]:
        """Return the runs of one request in the order of their images; `run_id` is any of them."""
        with self.readable() as db:
            first = self._row(db, run_id).group
            query = "SELECT * FROM runs WHERE id = ? OR idem_key GLOB ?"
            rows = db.execute(query, (first, f"{first}{MEMBER}*"))
            return sorted(map(Run.of, rows), key=lambda run: run.seed)

    def keyed(self, idem_key: str) -> list[Run]:
        """Return the runs of the request with an idempotency key in the order of their images, [] if none."""
        with self.readable() as db:
            row = db.execute("SELECT id FROM runs WHERE idem_key=?", (idem_key,)).fetchone()
        return self.group(row[0]) if row else []

    def get(self, run_id: str) -> Run:
        """Return one row; raises `BadInput` for an unknown id."""
        with self.readable() as db:
            return self._row(db, run_id)

    def get_some(self, run_ids: Collection[str]) -> dict[str, Run]:
        """Return the rows of those runs that there are, by id."""
        places = ", ".join("?" * len(run_ids))
        with self.readable() as db:
            rows = db.execute(f"SELECT * FROM runs WHERE id IN ({places})", tuple(run_ids))
            return {run.id: run for run in map(Run.of, rows)}

    def ended(self) -> dict[str, float]:
        """Return when each run ended, in seconds since the epoch, by its id; of rows that can be read."""
        query = "SELECT id, updated FROM runs WHERE outcome_json IS NOT NULL AND typeof(updated) = 'real'"
        with self.readable() as db:
            return dict(db.execute(query).fetchall())

    def newest(self, limit: int, prefix: str = "") -> list[Run]:
        """Return the newest rows whose id begins with `prefix`, newest first."""
        query = "SELECT * FROM runs WHERE substr(id, 1, ?) = ? ORDER BY created DESC, id DESC LIMIT ?"
        with self.readable() as db:
            rows = db.execute(query, (len(prefix), prefix, limit))
            return [Run.of(row) for row in rows]

    def queue(self) -> list[Run]:
        """Return the runs that wait for a worker, in the order in which workers take them."""
        with self.readable() as db:
            query = (
                "SELECT * FROM runs WHERE client IS NOT NULL AND outcome_json IS NULL ORDER BY created, id"
            )
            runs = [run for run in map(Run.of, db.execute(query)) if run.status in (QUEUED, RUNNING)]
            return in_order(runs, db)

    def unfinished(self) -> int:
        """Return the number of runs of clients that are queued or at work."""
        with self.readable() as db:
            query = (
                "SELECT count(*) FROM runs WHERE client IS NOT NULL AND outcome_json IS NULL "
                "AND status IN (?, ?)"
            )
            count: int = db.execute(query, (QUEUED, RUNNING)).fetchone()[0]
        return count

    def wait(self, run_id: str, fence: int, question: ApprovalRequest) -> bool:
        """Release a run until its question is answered; return False if a person has requested its end.

        Raises `LeaseLost`.
        """
        with self.transaction() as db:
            if self._row(db, run_id).cancel_requested:
                return False
            text = question.model_dump_json()
            self._change(
                db, run_id, fence, lease_owner=None, status=WAITING, question_json=text, answer_json=None
            )
            return True

    def answer(self, run_id: str, question: str, answer: Approval, client: str | None = None) -> Run:
        """Write the answer to a question, by its id, so that the run can go on; raises `BadInput`.

        A run of no client becomes one of `client`, so that a worker executes it.
        """
        with self.transaction() as db:
            run = self._row(db, run_id)
            if run.question is None or run.question.id != question:
                raise BadInput(no_question(run))
            text = answer.model_dump_json()
            self._change(db, run_id, run.fence, status=QUEUED, answer_json=text, client=run.client or client)
            return self._row(db, run_id)

    def claim(self, run_id: str, owner: Owner, *, reopen: bool = False) -> int:
        """Lease an open run to `owner` and return the new fence.

        `reopen` also leases a failed one, and drops an earlier request to cancel, not one to accept. Raises
        `Busy` with the live holder, `Waiting` and `Finished`.
        """
        with self.transaction() as db:
            run = self._row(db, run_id)
            run.require_intact()
            if run.status == WAITING:
                raise Waiting(f"run {run_id} waits for your approval")
            if run.status not in (QUEUED, RUNNING, "failed" if reopen else RUNNING):
                raise Finished(f"run {run_id} has ended: {run.status}")
            if holder := run.owner:
                until = time.strftime("%H:%M:%S", time.localtime(run.lease_until))
                raise Busy(f"run {run_id} is being worked on by {holder}, at least until {until}")
            self._change(
                db,
                run_id,
                run.fence,
                status="running",
                outcome_json=None,
                lease_owner=owner.model_dump_json(),
                lease_until=time.time() + LEASE_SECONDS,
                fence=run.fence + 1,
                cancel_requested=0 if reopen and run.cancel_requested == CANCEL else run.cancel_requested,
                deaths=0 if reopen else run.deaths + (run.status == RUNNING),
            )
            return run.fence + 1

    def renew(self, run_id: str, fence: int) -> None:
        """Extend the lease; raises `LeaseLost`."""
        with self.transaction() as db:
            self._change(db, run_id, fence, lease_until=time.time() + LEASE_SECONDS)

    def release(self, run_id: str, fence: int) -> None:
        """Release an unfinished run, so that the next holder need not wait."""
        with self.transaction() as db:
            self._change(db, run_id, fence, lease_owner=None, status=QUEUED)

    def commit(self, run_id: str, fence: int, outcome: Outcome) -> None:
        """Write the outcome; raises `LeaseLost` if the fence is stale."""
        with self.transaction() as db:
            text = outcome.model_dump_json()
            self._change(db, run_id, fence, status=outcome.ending, outcome_json=text, lease_owner=None)

    def request_cancel(self, run_id: str) -> Run:
        """Request cancellation and return the row; a finished run is not changed, a waiting one goes on."""
        return self._request(run_id, CANCEL)

    def request_accept(self, run_id: str) -> Run:
        """Request that a run ends as accepted with its best image, as `request_cancel` does."""
        return self._request(run_id, ACCEPT)

    def _request(self, run_id: str, request: int) -> Run:
        with self.transaction() as db:
            run = self._row(db, run_id)
            if run.status in OPEN:
                status = QUEUED if run.status == WAITING else run.status
                values = (request, status, time.time(), run_id)
                db.execute("UPDATE runs SET cancel_requested=?, status=?, updated=? WHERE id=?", values)
            return self._row(db, run_id)

    def _change(self, db: sqlite3.Connection, run_id: str, fence: int, /, **fields: Any) -> None:
        columns = ", ".join(f"{name}=?" for name in fields)
        values = (*fields.values(), time.time(), run_id, fence)
        cursor = db.execute(f"UPDATE runs SET {columns}, updated=? WHERE id=? AND fence=?", values)
        if cursor.rowcount != 1:
            raise LeaseLost(f"run {run_id} has been taken over by another process")

    def _row(self, db: sqlite3.Connection, run_id: str) -> Run:
        row = db.execute("SELECT * FROM runs WHERE id=?", (run_id,)).fetchone()
        if row is None:
            raise NotFound(f"run {run_id!r}: there is none", "`pleinair runs list` shows them.")
        return Run.of(row)

    def _insert(
        self, db: sqlite3.Connection, request_json: str, seed: int, key: str | None, client: str | None
    ) -> Run:
        now = time.time()
        run_id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime(now)) + secrets.token_hex(4)
        request = json.loads(request_json)
        listed = (
            str(request.get("prompt", "")).casefold(),
            str(request.get("graph", "")),
            str(request.get("settings", {}).get("profile", "")),
        )
        db.execute(
            "INSERT INTO runs (id, idem_key, order_json, seed, status, created, updated, client, "
            "words, graph, profile) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (run_id, key or None, request_json, seed, QUEUED, now, now, client, *listed),
        )
        return self._row(db, run_id)


def no_question(run: Run) -> str:
    """Return why a run's question cannot be answered."""
    if run.status in OPEN and run.answer_json:
        return f"run {run.id}: its question has been answered already"
    return f"run {run.id}: it waits for no approval (status: {run.status})"


def _differences(stored: str, requested: str) -> list[str]:
    before, after = json.loads(stored), json.loads(requested)
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
