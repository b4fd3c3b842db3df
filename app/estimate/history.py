"""What past runs of the same kind took, read without writing anything.

Runs whose log is missing or damaged, and requests that this version cannot read, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pleinair.app.paths import Paths
from pleinair.app.runs.event_rows import EventRows
from pleinair.app.runs.events import read
from pleinair.app.runs.request import DrawRequest, read_request
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Runs
from pleinair.app.texts import counted
from pleinair.app.trace.trace import Trace, trace_of
from pleinair.tools.types import BadInput

MOST_ROWS = 200  # read, newest first
MOST_RUNS = 20  # that an estimate rests on
USEFUL = ("accepted", "unchecked", "stopped")

Span = tuple[float, float]  # the least and the most


@dataclass(frozen=True)
class PastRun:
    """What one run took."""

    image_seconds: tuple[float, ...]  # of each image
    calls: int  # of the MLLM
    tokens: int
    mllm_usd: float
    image_usd: float
    other_seconds: float  # of work besides the images


def past_runs(request: DrawRequest, paths: Paths) -> list[PastRun]:
    """Return the newest finished runs of the same graph and profile with the same models."""
    runs: list[PastRun] = []
    for run in _finished(paths.table):
        if len(runs) == MOST_RUNS:
            break
        if is_alike(run, request) and (trace := _trace(paths.events(run.id))):
            runs.append(_past_run(trace))
    return runs


def is_alike(run: Run, request: DrawRequest) -> bool:
    """Return whether a run had the same graph, profile, generator, MLLM and image options."""
    try:
        other = read_request(run.request_json)
    except BadInput:
        return False
    return _kind(other) == _kind(request)


def _kind(request: DrawRequest) -> tuple[object, ...]:
    settings = request.settings
    return request.graph, settings.profile, settings.generator, settings.mllm, settings.image


def _finished(table: Path | str) -> Iterator[Run]:
    """Yield the newest runs that ended with an image; none if there is no table.

    Raises `PleinairError` when the table cannot be read.
    """
    runs = Runs(table)
    if runs.exists():
        yield from (run for run in runs.newest(MOST_ROWS) if run.status in USEFUL)


def _trace(log: Path | EventRows) -> Trace | None:
    """Return the trace of a log; None if it cannot be read or has no attempt."""
    try:
        trace = trace_of(read(log))
    except (BadInput, OSError):
        return None
    return trace if trace and trace.attempts else None


def _past_run(trace: Trace) -> PastRun:
    seconds = tuple(attempt.seconds for attempt in trace.attempts.values())
    return PastRun(
        image_seconds=seconds,
        calls=sum(usage.mllm_calls for usage in trace.usage),
        tokens=sum(usage.tokens for usage in trace.usage),
        mllm_usd=sum(usage.usd for usage in trace.usage if not usage.images),
        image_usd=sum(usage.usd for usage in trace.usage if usage.images),
        other_seconds=max(sum(usage.seconds for usage in trace.usage) - sum(seconds), 0.0),
    )


def span(values: Sequence[float]) -> Span | None:
    """Return the least and the most, None for no values."""
    return (min(values), max(values)) if values else None


def per_call(runs: Sequence[PastRun], name: str) -> Span | None:
    """Return the span of a field per MLLM call, over the runs that made any."""
    return span([getattr(run, name) / run.calls for run in runs if run.calls])


def basis(runs: Sequence[PastRun]) -> str:
    """Return what an estimate rests on, in words."""
    return f"by {counted(len(runs), 'past run')}"
