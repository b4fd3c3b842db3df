"""Messages of a chat as its page shows them: versions, what happened, and what happens at the moment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from pleinair.app.chat.messages import DELETED
from pleinair.app.chat.thread import Thread
from pleinair.app.paths import Paths
from pleinair.app.runs.events import read_readable
from pleinair.app.runs.request import read_request
from pleinair.app.runs.row import ACCEPT, Run
from pleinair.app.runs.tables import OPEN, QUEUED, RUNNING, WAITING
from pleinair.app.server.decisions import RunDecisions, decisions_of
from pleinair.app.server.site import LinkedGallery, LinkedImage, Site
from pleinair.app.storyboard.words import file_name
from pleinair.app.texts import counted
from pleinair.app.trace.activity import current_activity
from pleinair.app.trace.trace import Trace, license_text, title, trace_of
from pleinair.tools.types import Attempt, Reference, Row, Usage

LATEST = 20  # messages that are kept up to date
STARTING = "Starting"


@dataclass(frozen=True)
class ReferenceView:
    """Reference of an attempt."""

    concept: str
    source: str  # file and license
    image: LinkedImage


@dataclass(frozen=True)
class AttemptView:
    """One attempt, small."""

    number: int
    title: str
    image: LinkedImage
    alt: str
    rows: tuple[Row, ...]
    references: tuple[ReferenceView, ...]


@dataclass(frozen=True)
class VersionView:
    """One version of a message: its run, as far as it is."""

    id: str
    status: str
    reason: str  # "" while it is open
    facts: str = ""  # attempts, seconds and money so far
    seed: int | None = None
    shown: AttemptView | None = None  # the best one, or the newest so far
    attempts: tuple[AttemptView, ...] = ()
    activity: str = ""  # of a run in progress
    step: str = ""  # the same without numbers that count
    preview: str = ""  # address of the image in progress
    decisions: RunDecisions | None = None  # what may be decided, None if it has ended

    @property
    def is_open(self) -> bool:
        """Whether it goes on, or waits for an approval."""
        return self.status in OPEN


@dataclass(frozen=True)
class MessageView:
    """One message."""

    number: int  # from 1
    prompt: str
    versions: tuple[VersionView, ...]
    current: int  # index of the version that the next message continues

    @property
    def run(self) -> VersionView:
        """The current version."""
        return self.versions[self.current]


def message_views(site: Site, thread: Thread, earlier: bool = False) -> list[MessageView]:
    """Return the `LATEST` messages of a thread, or those before; a run that was deleted is shown as such."""
    start = max(len(thread.turns) - LATEST, 0)
    turns = list(enumerate(thread.turns, 1))[:start] if earlier else list(enumerate(thread.turns, 1))[start:]
    ids = [run for _, message in turns for run in message.runs]
    rows = {run.id: _run_view(site, run) for run in site.runs.get_some(ids).values()}
    return [
        MessageView(
            number,
            message.prompt,
            tuple(rows.get(run) or VersionView(run, DELETED, "its run was deleted") for run in message.runs),
            message.current,
        )
        for number, message in turns
    ]


def status_of(messages: list[MessageView]) -> str:
    """Return the state of the last message in short, to be read out."""
    if not messages:
        return ""
    run = messages[-1].run
    return run.step if run.is_open else f"{run.status}: {run.reason}"


def _run_view(site: Site, run: Run) -> VersionView:
    """Return a run for a message; one that has ended is read once."""
    if run.status not in OPEN:
        return _ended(run, site.places)
    return _open(site, run)


@lru_cache(maxsize=256)
def _ended(run: Run, places: Paths) -> VersionView:
    return _view(run, _trace(run, places))


def _trace(run: Run, places: Paths) -> Trace | None:
    """Return the trace of a run, None where nothing of it can be read."""
    return trace_of(read_readable(places.events(run.id)).events)


def _open(site: Site, run: Run) -> VersionView:
    events = read_readable(site.places.events(run.id)).events
    view = _view(run, trace_of(events))
    return replace(
        view,
        activity=_activity(site, run) or current_activity(events) or STARTING,
        step=_activity(site, run) or current_activity(events, counts=False) or STARTING,
        preview=_preview(site, run),
        decisions=decisions_of(run, site.places),
    )


def _preview(site: Site, run: Run) -> str:
    stamp = site.preview_stamp(run.id) if run.status == RUNNING else None
    return f"/runs/{run.id}/preview.png?{stamp[1]}" if stamp else ""


def _activity(site: Site, run: Run) -> str:
    """Return what an open run waits for, "" for one that is executed."""
    if run.status == WAITING:
        return "Waiting for your approval"
    if run.cancel_requested:
        return "Ending with its best image" if run.cancel_requested == ACCEPT else "Stopping after this step"
    if run.status == QUEUED:
        ahead = site.ahead(run)
        return f"In the queue: {counted(ahead, 'run')} before this one" if ahead else "Next in the queue"
    return ""


def _view(run: Run, trace: Trace | None) -> VersionView:
    if run.damage or trace is None:
        outcome = None if run.damage else run.outcome
        reason = outcome.reason if outcome else run.damage and "its row in the run table is damaged"
        return VersionView(run.id, run.status, reason, seed=run.seed)
    gallery = LinkedGallery(run.id, read_request(run.request_json))
    attempts = tuple(_attempt(attempt, trace.run.prompt, gallery) for attempt in trace.attempts.values())
    best = trace.outcome.best.number if trace.outcome and trace.outcome.best else None
    return VersionView(
        run.id,
        run.status,
        trace.outcome.reason if trace.outcome else "",
        _facts(trace),
        run.seed,
        shown=next((view for view in attempts if view.number == best), attempts[-1] if attempts else None),
        attempts=attempts,
    )


def _attempt(attempt: Attempt, prompt: str, gallery: LinkedGallery) -> AttemptView:
    rows = attempt.ledger.rows if attempt.ledger else ()
    verdicts = "; ".join(f"{row.concept} {row.status}" for row in rows)
    alt = f"{prompt}. {verdicts}" if verdicts else prompt
    references = tuple(_reference(reference, gallery) for reference in attempt.request.references)
    image = gallery.stored(attempt.picture)
    return AttemptView(attempt.number, title(attempt), image, alt, rows, references)


def _reference(reference: Reference, gallery: LinkedGallery) -> ReferenceView:
    hit = reference.hit
    is_input = hit.id == reference.picture.sha256
    name = hit.caption or "your image" if is_input else f"{file_name(hit)} · {license_text(hit)}"
    concept = reference.concept or "the whole image"
    return ReferenceView(concept, name, gallery.stored(reference.picture, reference.crop))


def _facts(trace: Trace) -> str:
    """Return attempts, seconds and money in words."""
    usage = Usage.total(trace.usage)
    words = [counted(len(trace.attempts), "attempt"), f"{usage.seconds:.1f} s"]
    return " · ".join([*words, f"{usage.usd:.4g} US dollars"] if usage.usd else words)
