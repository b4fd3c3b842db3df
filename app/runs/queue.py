"""The workers' queue: who is next, and whether there is room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from operator import itemgetter
from statistics import median
from typing import Protocol, TypeVar

from pleinair.app.runs.database import Connection
from pleinair.app.runs.owner import Owner
from pleinair.app.runs.tables import QUEUED
from pleinair.tools.types import BadInput, PleinairError

RECENT = 20  # runs by whose seconds a full queue says when there is room
REMEMBERED = 200  # ended runs by which the clients' turns are known
UNKNOWN_SECONDS = 10.0  # of a run, before one has ended


class Unfinished(Protocol):
    """What the order depends on, of a run that is queued or at work."""

    @property
    def id(self) -> str:
        """Id of the run."""

    @property
    def client(self) -> str | None:
        """Who queued it."""

    @property
    def created(self) -> float:
        """When it was queued, in seconds since the epoch."""

    @property
    def owner(self) -> Owner | None:
        """Its live holder, None where it waits."""


AnyRun = TypeVar("AnyRun", bound=Unfinished)


class QueueFull(PleinairError):
    """The workers' queue takes no more runs."""

    def __init__(self, most: int, retry_after: int) -> None:
        super().__init__(f"{most} runs are waiting already", f"Try again in {retry_after} s.")
        self.retry_after = retry_after  # seconds until there is probably room


def require_room(db: Connection, count: int, most: int | None) -> None:
    """Raise `QueueFull` if more than `most` runs would wait, `BadInput` if that is so of `count` alone."""
    if most is not None and count > most:
        raise BadInput(f"{count} images: the queue takes at most {most} runs", field="num_images")
    query = "SELECT count(*) FROM runs WHERE client IS NOT NULL AND outcome_json IS NULL AND status = ?"
    waiting = db.execute(query, (QUEUED,)).fetchone()[0]
    if most is not None and waiting + count > most:
        raise QueueFull(most, max(1, ceil((waiting + count - most) * _recent_seconds(db))))


def _recent_seconds(db: Connection) -> float:
    """Return how long a run of the queue took lately, from the end of the one before: the median."""
    query = (
        "SELECT created, updated FROM runs WHERE client IS NOT NULL AND outcome_json IS NOT NULL "
        "ORDER BY created DESC, id DESC LIMIT ?"
    )
    runs = sorted(db.execute(query, (RECENT + 1,)), key=itemgetter("updated"))
    pairs = pairwise([{"updated": 0.0}, *runs])
    seconds = [run["updated"] - max(run["created"], before["updated"]) for before, run in pairs]
    return median(seconds) if seconds else UNKNOWN_SECONDS


def in_order(runs: Sequence[AnyRun], db: Connection) -> list[AnyRun]:
    """Return those of the unfinished runs that wait for a worker, in the order in which workers take them.

    Clients take turns: a run comes after those of which another client has as many ahead of it, in the
    queue or at work; among equals the one comes first whose client has waited longest, since it asked or
    since its last run ended. A run whose worker has died waits again.
    """
    waiting = [run for run in runs if run.owner is None]
    ahead = Counter(run.client for run in runs if run.owner is not None)
    served = _last_served(db, len(runs)) if len({run.client for run in waiting}) > 1 else {}
    turns = []
    for run in waiting:
        turns.append((ahead[run.client], max(run.created, served.get(run.client, 0.0)), run.id))
        ahead[run.client] += 1
    return [run for _, run in sorted(zip(turns, waiting, strict=True), key=itemgetter(0))]


def _last_served(db: Connection, unfinished: int) -> dict[str | None, float]:
    """Return when the last run of each client ended, among the newest runs."""
    query = (
        "SELECT client, max(updated) "
        "FROM (SELECT * FROM runs ORDER BY created DESC, id DESC LIMIT ?) AS newest "
        "WHERE client IS NOT NULL AND outcome_json IS NOT NULL GROUP BY client"
    )
    return dict(db.execute(query, (unfinished + REMEMBERED,)).fetchall())
