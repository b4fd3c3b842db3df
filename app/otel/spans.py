"""Spans of a run, derived from its event log and its stored MLLM calls.

Every interface and process gives the same spans, also after the fact. A span is built when the event that
ends it is in the log, and never changes afterwards: steps, and what they did, under one span from the start
to the end of the run. A run that goes on after its end has one such span for each part, under the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app.otel import attributes as named
from pleinair.app.otel.images import ImageLinks
from pleinair.app.otel.span import Link, Scalar, Span, SpanEvent, bounded
from pleinair.app.runs.calls import CallRecord
from pleinair.app.runs.events import (
    Answered,
    Asked,
    Call,
    Changes,
    Ended,
    Event,
    Progress,
    Snapshot,
    StepFinished,
    StepStarted,
)
from pleinair.app.runs.request import DrawRequest
from pleinair.tools.types import Ledger, Outcome, Retrieval, Usage

ROOT = "run"  # key of the first span
FAILED = ("failed", "refused")  # endings that are errors
MOST_EVENTS = 20  # of a step


@dataclass(frozen=True)
class Source:
    """What a run's spans are made of.

    Args:
        run_id: of the run.
        request: of the run.
        events: that can be read of its log.
        calls: its MLLM calls, as stored.
        links: addresses of its images.
        conversation: id of the chat that it belongs to, "" for none.
    """

    run_id: str
    request: DrawRequest
    events: Sequence[Event]
    calls: Sequence[CallRecord]
    links: ImageLinks
    conversation: str = ""


@dataclass
class _Open:
    """Span whose end is not in the log yet."""

    key: str
    name: str
    start: float
    attempt: int = 0
    call: Call | None = None
    parent: str = ROOT
    events: list[SpanEvent] = field(default_factory=list)


def spans_of(source: Source) -> list[Span]:
    """Return the spans of a run that have ended, in the order of their ends."""
    builder = _Builder(source)
    for event in source.events:
        builder.add(event)
    return bounded(builder.spans)


class _Builder:
    """Spans from events, one after the other."""

    def __init__(self, source: Source) -> None:
        self._source, self.spans = source, list[Span]()
        self._part: _Open | None = None  # of the run, between a start and an end
        self._steps: list[_Open] = []
        self._question: _Open | None = None
        self._before = 0.0  # time of the event before
        self._images: dict[int, str] = {}  # SHA-256 by attempt, of those that have a span
        self._ledgers: dict[int, Ledger] = {}
        self._retrievals: dict[str, Retrieval] = {}  # the newest, by concept
        self._calls: set[int] = set()
        self._models: dict[str, str] = {}

    def add(self, event: Event) -> None:
        """Add an event: it opens, closes or describes a span."""
        match event.data:
            case Ended():
                self._end(event, event.data)
            case Snapshot():
                self._start(event, event.data)
            case StepStarted(call=call):
                step = _Open(f"step/{event.seq}", event.step, event.at, event.attempt, call, self._within)
                self._steps.append(step)
            case StepFinished():
                self._finish(event, event.data)
            case Progress():
                self._describe(event, event.data)
            case Asked(question=question):
                self._ask(event, question)
            case Answered(answer=answer):
                self._answer(event, "stopped" if answer.stop else "answered")
        self._before = event.at

    @property
    def _within(self) -> str:
        return self._part.key if self._part else ROOT

    def _start(self, event: Event, data: Snapshot) -> None:
        """Open a part of the run, or go on with it after a question or the death of a process."""
        self._models = data.models or self._models
        if self._part is None:
            key = f"{ROOT}/{event.seq}" if self.spans else ROOT
            self._part = _Open(key, "", event.at)
            if key == ROOT:  # what a fork or a chat takes over has its spans in the other run
                self._remember(data)
                return
        else:
            self._interrupt(event, self._before, data)
        self._part.events.append(SpanEvent("resumed", event.at))

    def _remember(self, data: Changes) -> None:
        self._images |= {attempt.number: attempt.picture.sha256 for attempt in data.attempts}
        self._ledgers |= {attempt.number: attempt.ledger for attempt in data.attempts if attempt.ledger}
        self._retrievals |= {retrieval.concept: retrieval for retrieval in data.retrievals}

    def _finish(self, event: Event, data: StepFinished) -> None:
        step = self._opened(event, data)
        if step in self._steps:
            self._steps.remove(step)
        self._children(step, event, data, event.at, data.calls)
        self._add_step(step, event, event.at, data)

    def _opened(self, event: Event, data: StepFinished) -> _Open:
        """Return the open step that has finished; the one about its retrieval, where several run at once."""
        steps = [step for step in self._steps if step.name == event.step]
        concepts = {retrieval.concept for retrieval in data.retrievals}
        about = (step for step in steps if step.call and step.call.about in concepts)
        if step := next(about, steps[0] if steps else None):
            return step
        key = f"step/{event.seq}"  # its start cannot be read
        return _Open(key, event.step, self._before or event.at, event.attempt, parent=self._within)

    def _interrupt(self, event: Event, at: float, data: Changes | None = None) -> None:
        """Close the steps that have not finished, and give what they stored to the first one."""
        steps, self._steps = self._steps, []
        for step in steps:
            calls = [
                call.number for call in self._source.calls if call.step == step.name and call.at >= step.start
            ]
            self._children(step, event, data or Changes(), max(at, step.start), calls)
            self._add_step(step, event, max(at, step.start), None)
            data = None

    def _add_step(self, step: _Open, event: Event, end: float, data: StepFinished | None) -> None:
        name, values = step.name, named.kind("CHAIN")
        if step.call:
            name = f"execute_tool {step.call.name}"
            values = named.kind("TOOL", "execute_tool")
            values |= {"gen_ai.tool.name": step.call.name, "gen_ai.tool.type": "function"}
            values |= {"tool.name": step.call.name, "input.value": step.call.about}
        values |= {"graph.node.id": step.name, "pleinair.step": step.name, "pleinair.attempt": step.attempt}
        values |= {"pleinair.finished": data is not None}
        values |= named.spent(Usage.total(data.usage)) if data else {}
        for attempt in data.attempts if data else ():
            values["output.value"] = self._source.links.image(attempt.picture.sha256)
        if data and data.concepts:
            values["output.value"] = "\n".join(concept.name for concept in data.concepts)
        if data and data.repairs:
            values["output.value"] = "\n".join(f"{each.action} {each.concept}" for each in data.repairs)
        outcome = event.data.outcome if isinstance(event.data, Ended) else None
        is_error = data is None and outcome is not None and outcome.ending in FAILED
        self._close(
            replace(step, name=name),
            event,
            end,
            values,
            "error" if is_error else "ok" if data else "",
            outcome.reason if outcome and is_error else "",
        )

    def _children(self, step: _Open, event: Event, data: Changes, end: float, calls: Iterable[int]) -> None:
        """Add the spans of what a step did: MLLM calls, retrievals, images, judgements."""
        inner = replace(step, parent=step.key, events=[])
        numbers = set(calls) - self._calls
        for call in (call for call in self._source.calls if call.number in numbers):
            self._calls.add(call.number)
            self._add_call(inner, event, call, end)
        settings, links = self._source.request.settings, self._source.links
        for number, retrieval in enumerate(data.retrievals):
            if not self._is_new(retrieval):
                continue
            place = replace(inner, key=f"{step.key}/retrieval/{number}", name="retrieval")
            self._close(place, event, end, named.retrieval(retrieval, settings.retrieval.method, links), "ok")
        for attempt in data.attempts:
            if self._images.get(attempt.number) != attempt.picture.sha256:
                generator = self._models.get("generator", settings.generator.label)
                values = named.attempt(attempt, generator, settings.generator.backend, links)
                place = replace(
                    inner,
                    key=f"{step.key}/image/{attempt.number}",
                    name=f"generate_content {generator}",
                    start=max(step.start, end - attempt.seconds),
                )
                self._close(place, event, end, values, "ok", is_call=True)
            if attempt.ledger and self._ledgers.get(attempt.number) != attempt.ledger:
                rows = named.evaluations(attempt.ledger)
                place = replace(
                    inner,
                    key=f"{step.key}/ledger/{attempt.number}",
                    name="evaluate",
                    events=[SpanEvent("gen_ai.evaluation.result", end, row) for row in rows],
                )
                self._close(place, event, end, named.judgement(attempt, attempt.ledger, links), "ok")
        self._remember(data)

    def _is_new(self, retrieval: Retrieval) -> bool:
        """Return whether a retrieval is not an earlier one, or what an answer or a fault left of it."""
        earlier = self._retrievals.get(retrieval.concept)
        if earlier is None or earlier.query != retrieval.query:
            return True
        ids = {hit.id for hit in earlier.hits}
        return not all(hit.id in ids for hit in retrieval.hits)

    def _add_call(self, step: _Open, event: Event, call: CallRecord, end: float) -> None:
        backend = self._source.request.settings.mllm.backend
        values = named.call(call, backend, self._source.links)
        start = min(max(call.at, step.start), end)
        error = call.error or next((each.error for each in call.tries[-1:] if not each.reply), "")
        if not call.finished:
            values["pleinair.finished"] = False
        if error:
            values["error.type"] = "_OTHER"
        place = replace(step, key=f"call/{call.number}", name=f"chat {call.model}".strip(), start=start)
        self._close(
            place,
            event,
            min(start + call.usage.seconds, end) if call.finished else end,
            values,
            "error" if error else "ok" if call.finished else "",
            error,
            is_call=True,
        )

    def _describe(self, event: Event, data: Progress) -> None:
        """Add a text of the model, or an error that it receives, to the step; counts are left out."""
        steps = [step for step in self._steps if step.name == event.step] or self._steps[-1:]
        shown = {"text": data.text, "error": data.error}
        values: dict[str, Scalar] = {f"pleinair.{name}": text for name, text in shown.items() if text}
        if steps and values and len(steps[-1].events) < MOST_EVENTS:
            steps[-1].events.append(SpanEvent("error" if data.error else "text", event.at, values))

    def _ask(self, event: Event, question: ApprovalRequest) -> None:
        self._interrupt(event, event.at)
        self._question = _Open(f"approval/{event.seq}", "approval", event.at, parent=self._within)
        images = [reference.picture.sha256 for reference in question.references]
        links = {
            f"input.images.{at}.image.url": self._source.links.image(image) for at, image in enumerate(images)
        }
        values = {"pleinair.before": question.before, "input.value": question.prompt, **links}
        self._question.events.append(SpanEvent("asked", event.at, values))

    def _answer(self, event: Event, how: str) -> None:
        if self._question:
            values = named.kind("CHAIN") | {"output.value": how}
            self._close(self._question, event, event.at, values, "ok")
        self._question = None

    def _end(self, event: Event, data: Ended) -> None:
        """Close the part of the run with everything that is still open in it."""
        self._models = data.models or self._models
        if self._part is None:
            self._part = _Open(f"{ROOT}/{event.seq}" if self.spans else ROOT, "", event.at)
            self._remember(data)
        self._interrupt(event, event.at, data)
        self._answer(event, data.outcome.ending)
        part, self._part = self._part, None
        graph = self._source.request.graph
        is_error = data.outcome.ending in FAILED
        self._close(
            replace(part, name=f"invoke_agent {graph}", parent="" if part.key == ROOT else ROOT),
            event,
            event.at,
            self._root(data),
            "error" if is_error else "ok",
            data.outcome.reason if is_error else "",
            links=() if part.key != ROOT else tuple(_links(self._source.request)),
        )

    def _root(self, data: Ended) -> dict[str, Scalar]:
        """Return the attributes of the span of the run."""
        request, outcome = self._source.request, data.outcome
        values = named.kind("AGENT", "invoke_agent")
        values |= {"pleinair.run": self._source.run_id, "pleinair.ending": outcome.ending}
        values |= {"input.value": request.prompt, "output.value": self._result(outcome)}
        if outcome.best:
            image = self._source.links.image(outcome.best.picture.sha256)
            values |= {"output.images.0.image.url": image, "pleinair.best": outcome.best.number}
        if outcome.ending in FAILED:
            values["error.type"] = outcome.ending
        if self._source.conversation:
            values["session.id"] = values["gen_ai.conversation.id"] = self._source.conversation
        values |= {"gen_ai.agent.name": request.graph, "agent.name": request.graph}
        values |= {"pleinair.seed": data.seed, "pleinair.profile": request.settings.profile}
        values |= {"pleinair.reason": outcome.reason, **named.spent(Usage.total(data.usage))}
        values |= {"pleinair.limit": outcome.limit} if outcome.limit else {}
        values |= {f"pleinair.model.{name}": model for name, model in data.models.items()}
        return values | {f"pleinair.version.{name}": version for name, version in data.versions.items()}

    def _result(self, outcome: Outcome) -> str:
        image = outcome.best and self._source.links.image(outcome.best.picture.sha256)
        return f"{outcome.ending}: {image}" if image else outcome.ending

    def _close(
        self,
        place: _Open,
        event: Event,
        end: float,
        attributes: dict[str, Scalar],
        status: Any = "",
        reason: str = "",
        *,
        is_call: bool = False,
        links: tuple[Link, ...] = (),
    ) -> None:
        span = Span(
            run=self._source.run_id,
            key=place.key,
            name=place.name,
            start=place.start,
            end=max(end, place.start),
            attributes=attributes,
            parent=place.parent,
            closed=event.seq,
            status=status,
            reason=reason,
            is_call=is_call,
            events=tuple(place.events),
            links=links,
        )
        self.spans.append(span)


def _links(request: DrawRequest) -> Iterable[Link]:
    """Yield links to the run of which this is a fork, and to that of the chat's request before."""
    if request.parent:
        yield Link(request.parent.run, {"pleinair.link": "fork", "pleinair.step": request.parent.step})
    if request.thread:
        runs = [run for run in (request.thread.after, *request.thread.between) if run]
        if runs:
            yield Link(runs[-1], {"pleinair.link": "chat"})
