"""A row of the run table: the request, the status, the lease and the outcome of a run."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any, get_args

from pydantic import ValidationError

from pleinair.agent.approval.types import Approval, ApprovalRequest
from pleinair.app.runs.owner import Owner
from pleinair.app.runs.tables import LISTED, OPEN, QUEUED, WAITING
from pleinair.tools.types import BadInput, Ending, Outcome

CANCEL, ACCEPT = 1, 2  # what a person requested of an open run, in `cancel_requested`
DAMAGED = "damaged"  # status of a row that cannot be read
MEMBER = "#image-"  # in the keys of a group's later runs: id of the first, this, number
_NUMBERS = ("seed", "lease_until", "fence", "cancel_requested", "created", "updated")
COLUMNS = {"order_json": "request_json"}  # names of version 0.1


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
    def of(cls, row: Any) -> Run:
        """Convert a row; version 0.1 stored `stopped` for runs that are now `unchecked`.

        A row that cannot be read has the status `damaged` and, in place of that column, nothing.
        """
        columns: dict[str, Any] = dict(row)
        values = {COLUMNS.get(name, name): value for name, value in columns.items() if name not in LISTED}
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
