"""MLLM calls of a run by its steps, and the messages of each as lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pleinair.app.paths import Paths
from pleinair.app.runs.calls import CallRecord, Message, Part, read_calls
from pleinair.app.runs.row import Run
from pleinair.app.trace.steps import Step, steps_of
from pleinair.app.trace.trace import spent
from pleinair.tools.types import BadInput, Usage

MOST_INLINE = 40_000  # characters of messages on the page of a run
Lines = Iterator[tuple[str, str]]  # a label and its text


@dataclass(frozen=True)
class StepCalls:
    """Step of a run with its MLLM calls; without its name where the checkpoints do not have it."""

    names: tuple[str, ...]
    attempt: int  # that it generated, judged or prepared
    usage: tuple[Usage, ...]
    tool_calls: tuple[str, ...]  # tool calls of a driving model
    calls: tuple[CallRecord, ...]

    @property
    def title(self) -> str:
        """The names in one line."""
        return " ".join(self.names) or ", ".join(dict.fromkeys(call.step for call in self.calls))

    @property
    def spent(self) -> str:
        """What the step cost, in words; "" for nothing."""
        usage = self.usage or tuple(call.usage for call in self.calls)
        return spent(usage, zeros=False) if usage else ""


def steps_with_calls(run: Run, places: Paths) -> list[StepCalls]:
    """List the steps of a run with their MLLM calls, then the calls of steps that were not finished."""
    try:
        steps = steps_of(run, places)
    except BadInput:  # its graph is not installed any more; the calls are there
        steps = list[Step]()
    return _joined(steps, read_calls(places.files(run.id)))


def _joined(steps: Sequence[Step], calls: Sequence[CallRecord]) -> list[StepCalls]:
    """Return steps with the calls that belong to them; those of no step come last."""
    tasks = {task for step in steps for task in step.tasks}
    rest = [call for call in calls if call.task not in tasks]
    by_step = [
        StepCalls(
            names=step.names,
            attempt=step.attempt,
            usage=step.usage,
            tool_calls=step.calls,
            calls=tuple(call for call in calls if call.task in step.tasks),
        )
        for step in steps
    ]
    others = [StepCalls((), call.attempt, (), (), (call,)) for call in rest]
    return [*by_step, *others]


def usage_by_attempt(steps: Sequence[StepCalls]) -> dict[int, str]:
    """Return what each attempt cost, in words: to prepare, generate and judge it."""
    numbers = dict.fromkeys(step.attempt for step in steps)
    usages = {
        number: [part for step in steps if step.attempt == number for part in step.usage]
        for number in numbers
    }
    return {number: spent(usage) for number, usage in usages.items() if usage}


def inline_calls(steps: Sequence[StepCalls]) -> set[int]:
    """Return the numbers of the calls whose messages fit on the page of the run, the first ones."""
    numbers, total = set[int](), 0
    for call in (call for step in steps for call in step.calls):
        total += sum(map(len, (text for _, text in call_lines(call))))
        if total > MOST_INLINE:
            break
        numbers.add(call.number)
    return numbers


def call_lines(call: CallRecord) -> Lines:
    """Yield labels with texts of a call: its requests with their messages, and the replies."""
    state = "" if call.finished else ", not finished"
    yield "call", f"{call.number}, {call.model or 'model'}, {spent([call.usage], zeros=False)}{state}"
    for number, (messages, request) in enumerate(call.requests, 1):
        if len(call.tries) > 1:
            repeated = ", the same messages" if request.messages is None else ""
            where = f" to {request.server}" if request.server else ""
            yield "request", f"{number} of {len(call.tries)}{where}{repeated}"
        if request.messages is not None:
            for message in messages:
                yield from _message_lines(message)
        if request.reply:
            yield from _message_lines(request.reply, "reply")
        if request.error:
            yield "failed", request.error
    if call.error:
        yield "error", call.error


def _message_lines(message: Message, label: str = "") -> Lines:
    for part in message.parts:
        yield label or message.role, _part_text(part)
    for call in message.calls:
        yield label or message.role, f"{call.name} {call.arguments}"
    if message.thoughts:
        yield "thoughts", message.thoughts


def _part_text(part: Part) -> str:
    return f"image {part.image}, {part.width}×{part.height}" if part.image else part.text


def plain_calls(calls: Sequence[CallRecord]) -> list[dict[str, Any]]:
    """Return calls as JSON values."""
    return [call.model_dump(mode="json", exclude_defaults=True) for call in calls]
