"""What earlier runs of one sort have spent, read without writing anything.

Not covered: runs whose log is gone or damaged, and orders that this version cannot read; they are left out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pleinair.app.paths import Paths
from pleinair.app.runs.events import read
from pleinair.app.runs.request import DrawRequest, read_order
from pleinair.app.runs.store import Run
from pleinair.app.trace.trace import Trace, trace_of
from pleinair.tools.types import BadInput, PleinairError

MOST = 200  # rows looked at, newest first
ENOUGH = 20  # runs that a quote rests on
USEFUL = ("accepted", "unchecked", "stopped")

Span = tuple[float, float]  # the least and the most


@dataclass(frozen=True)
class Spent:
    """Hold what one run took; seconds are of work."""

    pictures: tuple[float, ...]  # seconds each
    questions: int
    tokens: int
    usd: float  # for the questions
    painted: float  # US dollars for the pictures
    rest: float  # seconds besides the pictures


def past(order: DrawRequest, places: Paths) -> list[Spent]:
    """List what the newest finished runs of the same graph and profile, with the same models, have spent."""
    found: list[Spent] = []
    for run in _ended(places.table):
        if len(found) == ENOUGH:
            break
        if alike(run, order) and (trace := _trace(places.events(run.id))):
            found.append(_spent(trace))
    return found


def alike(run: Run, order: DrawRequest) -> bool:
    """Tell whether a run was of the same graph, profile, generator and language model."""
    try:
        other = read_order(run.order_json)
    except BadInput:
        return False
    ours, theirs = order.settings, other.settings
    return (other.graph, theirs.profile, theirs.generator, theirs.mllm) == (
        order.graph,
        ours.profile,
        ours.generator,
        ours.mllm,
    )


def _ended(table: Path) -> Iterator[Run]:
    """Yield the newest runs that drew to their end; a missing table has none.

    Raises `PleinairError` when the table cannot be read.
    """
    if not table.is_file():
        return
    # immutable leaves no files of SQLite's own beside the table; a table in use has a log to be read
    how = "mode=ro" if table.with_name(f"{table.name}-wal").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"{table.absolute().as_uri()}?{how}", uri=True, timeout=30)) as db:
            db.row_factory = sqlite3.Row
            rows = db.execute("SELECT * FROM runs ORDER BY created DESC LIMIT ?", (MOST,)).fetchall()
    except sqlite3.Error as error:
        raise PleinairError(f"the run table {table} cannot be read: {error}") from error
    runs = (Run.of(row) for row in rows)
    yield from (run for run in runs if run.status in USEFUL)


def _trace(log: Path) -> Trace | None:
    """Tell a run from its log, None where that cannot be read or nothing was drawn."""
    try:
        trace = trace_of(read(log))
    except (BadInput, OSError):
        return None
    return trace if trace and trace.attempts else None


def _spent(trace: Trace) -> Spent:
    """Sum up a run."""
    pictures = tuple(one.seconds for one in trace.attempts.values())
    return Spent(
        pictures=pictures,
        questions=sum(one.mllm_calls for one in trace.usage),
        tokens=sum(one.tokens for one in trace.usage),
        usd=sum(one.usd for one in trace.usage if not one.images),
        painted=sum(one.usd for one in trace.usage if one.images),
        rest=max(sum(one.seconds for one in trace.usage) - sum(pictures), 0.0),
    )


def span(values: Sequence[float]) -> Span | None:
    """Give the least and the most, None of nothing."""
    return (min(values), max(values)) if values else None


def each(runs: Sequence[Spent], name: str) -> Span | None:
    """Give the span of `name` for a question, over the runs that asked any."""
    return span([getattr(one, name) / one.questions for one in runs if one.questions])


def by(runs: Sequence[Spent]) -> str:
    """Say what an estimate rests on."""
    return f"by {counted(runs)}"


def counted(runs: Sequence[Spent]) -> str:
    """Count the past runs."""
    return "1 past run" if len(runs) == 1 else f"{len(runs)} past runs"
