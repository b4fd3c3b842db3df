"""A run as JSON, the same for every interface: standing, images, ledger, references, question."""

from __future__ import annotations

import json
from typing import Any

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app.credits.sheet import Chosen, credit_of
from pleinair.app.paths import Paths
from pleinair.app.runs.events import Branch, read_readable
from pleinair.app.runs.facts import details_of
from pleinair.app.runs.request import read_request
from pleinair.app.runs.results import chosen_by, source_type_of
from pleinair.app.runs.row import Run
from pleinair.app.runs.tables import OPEN
from pleinair.app.trace.trace import Trace, best_of, credits_of, device_ahead, trace_of
from pleinair.tools.retrieval.changes import IndexAge
from pleinair.tools.types import Attempt, Picture, Row, Usage, Value


class AttemptView(Value):
    """One generated image: what was sent, what came out, how it was judged."""

    number: int  # 0 is the draft
    image: Picture
    prompt: str  # as sent
    negative_prompt: str = ""
    seed: int
    references: tuple[dict[str, Any], ...] = ()  # the fields of `ImageCredit`
    ledger: tuple[Row, ...] | None = None  # None: not judged


class Abstention(Value):
    """A concept for which the library has nothing."""

    concept: str
    reason: str
    excluded_by_license: tuple[str, ...] = ()  # ids of images that match it, and whose licenses do not
    unmet: dict[str, int] = {}  # by setting: images that meet a condition alone; none meets all of them


class RunView(Value):
    """What there is to say about a run, whether it has begun or ended or not."""

    run: str
    status: str  # queued, running, waiting, or how it ended
    has_ended: bool
    interrupted: bool = False  # it has begun, and no process works on it
    by_program: bool = False  # only a Python program executes it: it has handed over objects
    owner: str = ""  # process that works on it, and until when its lease is
    reason: str = ""  # of its end
    limit: str | None = None  # of the budget, which ended it
    prompt: str
    graph: str
    profile: str
    seed: int
    created: str  # ISO 8601
    group: str = ""  # of the request's images, if there are several
    parent: Branch | None = None  # of a fork
    base: Picture | None = None  # image of which only the transparent part is generated
    ahead: int | None = None  # runs that have the device first
    best: int | None = None  # number of the best attempt so far
    attempts: tuple[AttemptView, ...] = ()
    abstentions: tuple[Abstention, ...] = ()
    usage: Usage = Usage()
    models: dict[str, str] = {}
    library: IndexAge | None = None  # whose images were retrieved, once the run has ended
    model_licenses: dict[str, str] = {}  # of those whose license is known
    credit_line: str = ""  # of the references of the best image
    digital_source_type: str = ""  # IPTC's, an address of its vocabulary
    picture: str | None = None  # file of the best image, once the run has ended
    sidecar: str | None = None
    original: str | None = None  # file in which a server sent and signed the best image, unchanged
    question: ApprovalRequest | None = None  # that a person has to answer

    @property
    def best_attempt(self) -> AttemptView | None:
        """The best attempt so far, None where there is no image."""
        return next((attempt for attempt in self.attempts if attempt.number == self.best), None)


def view_of(run: Run, places: Paths) -> RunView:
    """Return a run's view by its row and the events that can be read; raises `BadInput` for a damaged row."""
    run.require_intact()
    facts = {name: value for name, value in details_of(run).items() if name in RunView.model_fields}
    facts["base"] = json.loads(run.request_json).get("base")
    events = read_readable(places.events(run.id)).events
    trace = trace_of(events)
    parts = _parts(run, trace) if trace else {}
    ahead = None if run.status not in OPEN else device_ahead(events)
    return RunView(**facts, has_ended=run.outcome is not None, ahead=ahead, question=run.question, **parts)


def _parts(run: Run, trace: Trace) -> dict[str, Any]:
    request = read_request(run.request_json)
    chosen = chosen_by(request)
    best, sheet = best_of(trace), credits_of(trace, chosen)
    latest = {retrieval.concept: retrieval for retrieval in trace.retrievals.values()}
    return {
        "best": best.number if best else None,
        "attempts": tuple(_attempt(trace.attempts[number], chosen) for number in sorted(trace.attempts)),
        "abstentions": tuple(
            Abstention(
                concept=retrieval.concept,
                reason=retrieval.reason,
                excluded_by_license=retrieval.excluded_by_license,
                unmet=retrieval.unmet,
            )
            for retrieval in latest.values()
            if retrieval.abstained
        ),
        "usage": Usage.total(trace.usage),
        "models": trace.run.models,
        "library": trace.run.library,
        "model_licenses": {model.kind: model.license for model in sheet.models if model.license},
        "credit_line": sheet.line,
        "digital_source_type": source_type_of(request, list(trace.attempts.values())),
        "parent": trace.run.parent,
    }


def _attempt(attempt: Attempt, chosen: Chosen) -> AttemptView:
    request = attempt.request
    return AttemptView(
        number=attempt.number,
        image=attempt.picture,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        references=tuple(
            credit_of(reference, chosen).model_dump(mode="json") for reference in request.references
        ),
        ledger=attempt.ledger.rows if attempt.ledger else None,
    )
