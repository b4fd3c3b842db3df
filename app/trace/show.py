"""Trace of a run for a terminal or as JSON: a block for each attempt, then the steps by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pleinair.app.credits.sheet import credit_of
from pleinair.app.paths import Paths
from pleinair.app.runs.calls import CallRecord
from pleinair.app.runs.request import read_request
from pleinair.app.runs.results import HEADING, chosen_by
from pleinair.app.runs.row import Run
from pleinair.app.texts import counted
from pleinair.app.trace.calls import call_lines, plain_calls, steps_with_calls
from pleinair.app.trace.trace import (
    BASES,
    SIGNS,
    AttemptTrace,
    crop_text,
    leak_text,
    license_text,
    near_copies_text,
    offload_text,
    score_text,
    spent,
    trace_begun,
)
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Hit, Retrieval, Row, Usage

Lines = Iterator[tuple[str, str]]  # a label and its text


class Report:
    """Trace of a run with its steps.

    Raises `BadInput` for a run that has not begun.
    """

    def __init__(self, run: Run, places: Paths) -> None:
        self.run = run
        self.trace = trace_begun(run, places)
        self._chosen = chosen_by(read_request(run.request_json))
        self._store = ArtifactStore(places.pictures(run.id))
        self.steps = steps_with_calls(run, places)

    def usage(self, number: int) -> list[Usage]:
        """Return what was spent on one attempt: to prepare, generate and judge it."""
        return [part for step in self.steps if step.attempt == number for part in step.usage]

    @property
    def calls(self) -> list[CallRecord]:
        """The MLLM calls in their order."""
        calls = [call for step in self.steps for call in step.calls]
        return sorted(calls, key=lambda call: call.number)

    def lines(self, *, messages: bool = False) -> Lines:
        """Yield labels with their texts, and messages if asked; a block begins with a label and no text."""
        yield from self._heading()
        for attempt in self.trace.attempt_traces:
            yield "", ""
            yield attempt.title + (" ★ best" if attempt.best else ""), ""
            yield from self._attempt(attempt)
        if self.steps:
            yield "", ""
            yield "Steps, for `pleinair trace fork --at`", ""
        for step in self.steps:
            yield step.title, "; ".join(filter(None, (*step.tool_calls, step.spent))) or "nothing spent"
        for step in self.steps if messages else ():
            for call in step.calls:
                yield "", ""
                yield step.title, ""
                yield from call_lines(call)

    def plain(self, *, messages: bool = False) -> dict[str, Any]:
        """Return the same as JSON values."""
        outcome = self.trace.outcome
        return {
            **self.trace.run.model_dump(mode="json", include=HEADING, exclude_none=True),
            **self.trace.run.model_dump(mode="json", include={"library"}),
            "status": self.run.status,
            "reason": outcome.reason if outcome else "",
            "limit": outcome.limit if outcome else None,
            "concepts": [concept.model_dump() for concept in self.trace.concepts],
            "attempts": [self._plain(attempt) for attempt in self.trace.attempt_traces],
            "usage": [part.model_dump() for part in self.trace.usage],
            "steps": [
                {"names": step.names, "attempt": step.attempt}
                | ({"calls": step.tool_calls} if step.tool_calls else {})
                | ({"mllm_calls": [call.number for call in step.calls]} if messages and step.calls else {})
                for step in self.steps
            ],
            **({"mllm_calls": plain_calls(self.calls)} if messages else {}),
            **({"damaged_lines": self.trace.damaged_lines} if self.trace.damaged_lines else {}),
        }

    def _heading(self) -> Lines:
        start, outcome = self.trace.run, self.trace.outcome
        yield f"Run {start.run}", ""
        yield "prompt", start.prompt
        yield "graph", f"{start.graph}, seed {start.seed}"
        if start.parent:
            yield "fork", f"of {start.parent.run} at {start.parent.step}"
        yield from start.models.items()
        if start.library:
            yield "library", start.library.summary
        yield "concepts", ", ".join(concept.name for concept in self.trace.concepts) or "none listed"
        yield "ending", f"{outcome.ending}: {outcome.reason}" if outcome else self.run.status
        yield "spent", self.trace.spent
        if self.trace.damage:
            yield "damaged", self.trace.damage

    def _attempt(self, trace: AttemptTrace) -> Lines:
        attempt, request = trace.attempt, trace.attempt.request
        usage = self.usage(attempt.number)
        yield "prompt", request.prompt
        yield (
            "generated",
            f"seed {request.seed}, {request.width}×{request.height}, "
            f"{counted(request.num_inference_steps, 'step')}, guidance {request.guidance_scale:g}, "
            f"in {attempt.seconds:.1f} s",
        )
        optional = {"offload": offload_text(attempt), "inpainted": trace.inpainted}
        yield from ((label, text) for label, text in optional.items() if text)
        for reference in request.references:
            hit = reference.hit
            facts = (
                f"{_hit_text(hit)}, {trace.rank(reference.concept, hit)}",
                crop_text(reference),
                _rights(hit),
            )
            yield "reference", f"{reference.concept} ← {'; '.join(filter(None, facts))}"
            if leaked := leak_text(attempt, reference):
                yield "leaked", leaked
        for retrieval in trace.retrievals:
            yield from _not_used(retrieval)
        for retrieval, rank, hit in trace.unselected:
            why = trace.why_unselected(retrieval, rank, hit)
            place = f"rank {rank}{why and f', {why}'}"
            yield "unselected", f"{retrieval.concept} ← {_hit_text(hit)}, {place}; {_rights(hit)}"
        yield "image", self._store.path(attempt.picture)
        yield from (("ledger", _row_text(row)) for row in trace.rows)
        yield "decision", trace.decision
        if usage:
            yield "spent", spent(usage)

    def _plain(self, trace: AttemptTrace) -> dict[str, Any]:
        attempt = trace.attempt
        return {
            **attempt.model_dump(mode="json"),
            "best": trace.best,
            "painted": trace.inpainted,
            "credits": [
                credit_of(reference, self._chosen).model_dump(mode="json")
                for reference in attempt.request.references
            ],
            "not_picked": [
                {
                    "concept": retrieval.concept,
                    "rank": rank,
                    "vetoed": hit.id in trace.vetoes,
                    **hit.model_dump(),
                }
                for retrieval, rank, hit in trace.unselected
            ],
            "vetoed": sorted(trace.vetoes),
            "abstained": {each.concept: each.reason for each in trace.retrievals if each.abstained},
            "unavailable": {each.concept: each.unavailable for each in trace.retrievals if each.unavailable},
            "near_copies": {each.concept: each.near_copies for each in trace.retrievals if each.near_copies},
            "decision": trace.decision,
            "file": self._store.path(attempt.picture),
            "usage": [part.model_dump() for part in self.usage(attempt.number)],
        }


def _not_used(retrieval: Retrieval) -> Lines:
    if retrieval.abstained:
        yield "abstained", f"{retrieval.concept}: {retrieval.reason}"
    for id, why in retrieval.unavailable.items():
        yield "unavailable", f"{retrieval.concept} ← {id}: {why}"
    if retrieval.near_copies:
        yield "left out", f"{retrieval.concept}: {near_copies_text(retrieval)}"


def _hit_text(hit: Hit) -> str:
    return f"{hit.id}, {score_text(hit)}"


def _rights(hit: Hit) -> str:
    return ", ".join(filter(None, (license_text(hit), hit.author, hit.source)))


def _row_text(row: Row) -> str:
    line = f"{SIGNS[row.status]} {row.concept}: {row.status} {row.confidence:.0%}"
    return ", ".join(filter(None, (line, row.evidence, BASES[row.basis])))
