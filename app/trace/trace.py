"""A run as its events tell it: attempts, retrievals, usage and the outcome, and how people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pleinair.agent import ledger
from pleinair.app.credits.sheet import Chosen, Sheet, sheet_of
from pleinair.app.paths import Paths
from pleinair.app.runs.events import (
    Answered,
    Changes,
    Event,
    Progress,
    Snapshot,
    payloads,
    read,
    read_readable,
)
from pleinair.app.runs.row import Run
from pleinair.app.texts import counted
from pleinair.tools.images.crops import pixels
from pleinair.tools.retrieval.licenses import UNKNOWN
from pleinair.tools.types import (
    Attempt,
    BadInput,
    Basis,
    Concept,
    Hit,
    Outcome,
    Reference,
    Repair,
    Retrieval,
    Row,
    Usage,
)

SIGNS = {"present": "●", "unsure": "◐", "missing": "○"}  # of a row's status
_SCORES = {"": "score", "cosine": "cosine", "bm25": "BM25", "rrf": "rank fusion"}
_MATCHES = {
    "": "no match",
    "caption": "matched by its caption",
    "similarity": "matched by similarity",
    "both": "matched by caption and similarity",
}
MOST_COPIES = 3  # near copies that are named
MOST_LINES = 10  # damaged lines that are named
BASES: dict[Basis, str] = {
    "": "",
    "cut_out": "judged on a cut-out with more pixels",
    "unchanged": "not asked again: its pixels are the same as before",
}
COUNTED = {"images": "image", "mllm_calls": "MLLM call", "tokens": "token"}


@dataclass(frozen=True)
class AttemptTrace:
    """One attempt: what was retrieved for it, what came out, what was decided next."""

    attempt: Attempt
    retrievals: list[Retrieval]
    earlier: list[Retrieval]  # of the attempts before, the newest first
    decisions: tuple[str, ...]
    best: bool
    inpainted: str = ""  # what alone was generated anew; empty where the whole image was
    vetoes: frozenset[str] = frozenset()  # ids of hits that were vetoed before it

    @property
    def title(self) -> str:
        """Title of the attempt."""
        return title(self.attempt)

    @property
    def decision(self) -> str:
        """What was decided next, in one line."""
        return "; ".join(self.decisions)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The ledger's rows, none if the attempt was not judged."""
        return self.attempt.ledger.rows if self.attempt.ledger else ()

    @property
    def unselected(self) -> list[tuple[Retrieval, int, Hit]]:
        """Hits that were retrieved and not selected, with their rank from 1."""
        used = {reference.hit.id for reference in self.attempt.request.references}
        return [
            (retrieval, rank, hit)
            for retrieval in self.retrievals
            for rank, hit in enumerate(retrieval.hits, 1)
            if hit.id not in used
        ]

    def why_unselected(self, retrieval: Retrieval, rank: int, hit: Hit) -> str:
        """Return why a hit is not in the image, "" where nothing is recorded."""
        if hit.id in self.vetoes:
            return "vetoed"
        if hit.id in retrieval.unavailable:
            return f"not readable: {retrieval.unavailable[hit.id]}"
        if retrieval.abstained:
            return "retrieval abstained"
        if not retrieval.accepts(hit):
            of_query = " of this query" if retrieval.query_scores else ""
            return f"below the threshold {retrieval.threshold:.2f}{of_query}"
        used = {reference.hit.id for reference in self.attempt.request.references}
        return "after the selected one" if any(other.id in used for other in retrieval.hits[:rank]) else ""

    def rank(self, concept: str, hit: Hit) -> str:
        """Return a selected reference's rank in the retrieval that found it."""
        retrievals = (*self.retrievals, *self.earlier)
        hits = next((retrieval.hits for retrieval in retrievals if retrieval.concept == concept), ())
        ids = [candidate.id for candidate in hits]
        return f"rank {ids.index(hit.id) + 1} of {len(ids)}" if hit.id in ids else "not retrieved"


@dataclass
class Trace:
    """A whole run; unfinished ones have no outcome yet."""

    run: Snapshot  # the newest
    concepts: tuple[Concept, ...] = ()
    attempts: dict[int, Attempt] = field(default_factory=dict)  # by number
    retrievals: dict[tuple[int, str], Retrieval] = field(default_factory=dict)  # by attempt and concept
    usage: list[Usage] = field(default_factory=list)
    outcome: Outcome | None = None
    repairs: tuple[Repair, ...] = ()  # planned, and of no attempt yet
    damaged_lines: list[int] = field(default_factory=list)  # of the log, from 1
    vetoes: dict[str, int] = field(default_factory=dict)  # by id: the number of the first image without it
    device_ahead: int | None = None  # runs that have the device before it, while it waits for that

    @property
    def attempt_traces(self) -> list[AttemptTrace]:
        """The attempts in their order."""
        best = self.outcome.best.number if self.outcome and self.outcome.best else -1
        retrievals = [(at, retrieval) for (at, _), retrieval in self.retrievals.items()]
        return [
            AttemptTrace(
                attempt=attempt,
                retrievals=[retrieval for at, retrieval in retrievals if at == number],
                earlier=[retrieval for at, retrieval in reversed(retrievals) if at < number],
                decisions=self._decisions(number),
                best=number == best,
                inpainted=self._inpainted(attempt),
                vetoes=frozenset(id for id, first in self.vetoes.items() if first <= number),
            )
            for number, attempt in sorted(self.attempts.items())
        ]

    @property
    def spent(self) -> str:
        """What was spent, in words."""
        return spent(self.usage)

    @property
    def damage(self) -> str:
        """What of the log is missing in the trace, "" where it is whole."""
        numbers = ", ".join(map(str, self.damaged_lines[:MOST_LINES]))
        more = ", …" if len(self.damaged_lines) > MOST_LINES else ""
        return f"events.jsonl: line {numbers}{more} cannot be read and is left out" if numbers else ""

    def add(self, event: Event) -> None:
        """Add an event; a step that a crash made happen twice counts once."""
        data = event.data
        if isinstance(data, Answered):
            self._add_vetoes(data.answer.vetoes, event)
        if not isinstance(data, Changes):
            return
        if isinstance(data, Snapshot):
            self.run, self.usage = data, []  # a snapshot holds all of it
        self.concepts = data.concepts or self.concepts
        self.attempts |= {attempt.number: attempt for attempt in data.attempts}
        for retrieval in data.retrievals:
            self._add_retrieval(retrieval, event)
        self.usage += data.usage
        self.repairs = self.repairs if data.repairs is None else data.repairs
        self.outcome = data.outcome or self.outcome
        self._add_vetoes(data.vetoes, event)

    def _add_vetoes(self, ids: Iterable[str], event: Event) -> None:
        for id in ids:
            self.vetoes.setdefault(id, event.attempt)

    def _add_retrieval(self, retrieval: Retrieval, event: Event) -> None:
        """File a retrieval under its attempt; snapshots repeat most, and have no number for them."""
        if any(_has_all(earlier, retrieval) for earlier in self.retrievals.values()):
            return
        number = min(event.attempt, max(self.attempts, default=event.attempt) + 1)
        if isinstance(event.data, Snapshot):
            repaired = (
                attempt.number
                for attempt in self.attempts.values()
                if any(repair.concept == retrieval.concept for repair in attempt.repairs)
            )
            number = min(repaired, default=number)
        self.retrievals[number, retrieval.concept] = retrieval

    def _inpainted(self, attempt: Attempt) -> str:
        """Return which part of which image was inpainted, "" where the whole image was generated."""
        inpaint = attempt.request.inpaint
        if inpaint is None:
            return ""
        if inpaint.masked:
            return "Only the transparent part of the base image was generated; the rest is the base image."
        sources = (other for other in self.attempts.values() if other.picture == inpaint.picture)
        names = (f"{'' if other.number else 'the '}{title(other).lower()}" for other in sources)
        source = next(names, "an earlier image")
        return f"Only the box of “{inpaint.concept}” was inpainted; the rest is {source}."

    def _decisions(self, number: int) -> tuple[str, ...]:
        following = self.attempts.get(number + 1)
        if following:
            return tuple(map(repair_text, following.repairs)) or ("Generated again.",)
        if self.outcome is None:
            return tuple(map(repair_text, self.repairs)) or ("Not decided yet.",)
        ending = self.outcome.ending.capitalize()
        # the reason of a refusal or an error can be long, and stands at the top
        long = self.outcome.ending in ("refused", "failed")
        return (f"{ending}." if long else f"{ending}: {self.outcome.reason}",)


def _has_all(earlier: Retrieval, later: Retrieval) -> bool:
    """Return whether a retrieval is an earlier one, or what a person's answer left of it."""
    if earlier == later:
        return True
    is_same = (earlier.concept, earlier.query) == (later.concept, later.query)
    ids = {hit.id for hit in earlier.hits}
    return is_same and len(later.hits) < len(ids) and all(hit.id in ids for hit in later.hits)


def trace_of(events: Sequence[Event]) -> Trace | None:
    """Return the trace of a run's events, None where it has not begun."""
    snapshots = payloads(events, Snapshot)
    if not snapshots:
        return None
    trace = Trace(snapshots[0])
    for event in events:
        trace.add(event)
    return trace


def credits_of(trace: Trace, chosen: Chosen) -> Sheet:
    """Return the credits of a run, which may not have ended; `chosen` are the references of its user."""
    run, attempts = trace.run, trace.attempts.values()
    return sheet_of(run.run, run.prompt, attempts, best_of(trace), run.models, chosen)


def best_of(trace: Trace) -> Attempt | None:
    """Return the best attempt so far."""
    return trace.outcome.best if trace.outcome else ledger.best(list(trace.attempts.values()))


def trace_begun(run: Run, places: Paths) -> Trace:
    """Return the trace of a run by the events that can be read.

    Raises `BadInput` where the run has not begun, or no state of it can be read.
    """
    events, damaged = read_readable(places.events(run.id))
    trace = trace_of(events)
    if trace is None:
        read(places.events(run.id))  # names the damaged line
        raise BadInput(f"run {run.id}: it has not begun (status: {run.status})")
    trace.damaged_lines, trace.device_ahead = damaged, device_ahead(events)
    return trace


def device_ahead(events: Sequence[Event]) -> int | None:
    """Return the number of runs that have the device before a run; None where it does not wait for that."""
    last = events[-1].data if events else None
    return last.ahead if isinstance(last, Progress) else None


def spent(usage: Sequence[Usage], *, zeros: bool = True) -> str:
    """Return the sum of usages in words, also that there were no images or calls unless `zeros` is False."""
    total = {name: sum(getattr(part, name) for part in usage) for name in COUNTED}
    shown = [key for key in COUNTED if total[key] or (zeros and key != "tokens")]
    words = [counted(total[key], COUNTED[key]) for key in shown]
    cached = sum(part.cached_tokens for part in usage)
    words += [f"{cached:,} of them from a cache"] if cached else []
    usd = sum(part.usd for part in usage)
    words += [f"{usd:.4g} US dollars"] if usd else []
    return ", ".join([*words, f"{sum(part.seconds for part in usage):.1f} s"])


def near_copies_text(retrieval: Retrieval) -> str:
    """Return how many near copies of hits were left out, with the first ones and their hits."""
    copies = [f"{id} (of {hit})" for id, hit in retrieval.near_copies.items()]
    count = "1 near copy" if len(copies) == 1 else f"{len(copies)} near copies"
    names = ", ".join(copies[:MOST_COPIES])
    return f"{count}: {names}{', …' if len(copies) > MOST_COPIES else ''}"


def title(attempt: Attempt) -> str:
    """Return the title of an attempt; the first is a draft only where it has no references."""
    if attempt.number:
        return f"Attempt {attempt.number}"
    return "First image" if attempt.request.references else "Draft"


def score_text(hit: Hit) -> str:
    """Return the score of a hit with its kind, and why hybrid retrieval counts the hit."""
    parts = [f"{_SCORES[hit.score_kind]} {hit.score:.{3 if hit.score_kind == 'rrf' else 2}f}"]
    if hit.similarity is not None:
        parts.append(f"cosine {hit.similarity:.2f}")
    if hit.score_kind == "rrf":
        parts.append(_MATCHES[hit.matched_by])
    return ", ".join(parts)


def license_text(hit: Hit) -> str:
    """Return the license of a hit, or that there is none."""
    return "license unknown" if hit.license == UNKNOWN else hit.license


def offload_text(attempt: Attempt) -> str:
    """Return the offload levels of an attempt, "" where the model was simply on the device."""
    return "" if attempt.offload_levels in ((), ("whole",)) else " → ".join(attempt.offload_levels)


def repair_text(repair: Repair) -> str:
    """Return a repair in words."""
    action = repair.action.replace("_", " ").capitalize()
    return f"{action} for “{repair.concept}”" + (f": {repair.why}" if repair.why else "")


def crop_text(reference: Reference) -> str:
    """Return how much of a reference was sent, "" where it was all of it."""
    if reference.crop is None:
        return ""
    size = reference.picture.width, reference.picture.height
    x0, y0, x1, y1 = pixels(reference.crop, size)
    return f"cut to {x1 - x0} × {y1 - y0} of {size[0]} × {size[1]} pixels"


def leak_text(attempt: Attempt, reference: Reference) -> str:
    """Return how much of a reference leaked besides its concept, "" where nothing was compared."""
    for leak in attempt.leaks:
        if (leak.concept, leak.id) == (reference.concept, reference.hit.id):
            shares = {"background": leak.background, "pose": leak.pose, "whole": leak.copied}
            return ", ".join(f"{part} {share:.0%}" for part, share in shares.items() if share is not None)
    return ""
