"""Run conversations by a driver, and count: calls, lines that end as expected, images, recoveries.

A line ends as expected if its image was asked for by a prompt that means the expected one, really shows every
subject of it, and no more images were generated than allowed; or, where nothing is to be drawn, if no image
was generated and the driver ended in words. Not covered: whether these words are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from pleinair.agent.context import Context
from pleinair.agent.react.messages import ENDED
from pleinair.agent.react.state import ReactState, current_messages
from pleinair.agent.state import changed
from pleinair.evals.driving.conversations import Conversation, Line
from pleinair.evals.driving.drivers import IdealDriver
from pleinair.evals.driving.engines import Bench, Truth, phrase_of
from pleinair.evals.metrics import estimate
from pleinair.evals.pocket.language import same_request
from pleinair.evals.run import STEPS
from pleinair.graphs.react import builder
from pleinair.tools.pocket.catalogue.language.reading import complete, read
from pleinair.tools.pocket.catalogue.language.refusals import NotUnderstood
from pleinair.tools.types import PleinairError, Usage

_MOST = 24.0  # bound of the means of calls and images; a run of three images has at most 22 replies


@dataclass(frozen=True, slots=True)
class LineResult:
    """What a driver did with a line; `error` is that of a run that raised."""

    conversation: str
    line: int
    has_fault: bool  # in its conversation
    is_right: bool  # ended as expected
    calls: int
    invalid: int  # calls with an error as their result, but for injected faults
    wasted: int  # calls beyond the least
    images: int
    mllm_calls: int
    ending: str = ""
    error: str = ""


def run_conversation(conversation: Conversation, model: Any, bench: Bench) -> Iterator[LineResult]:
    """Run the lines of a conversation in one thread; an error that a user could act on fails its line."""
    context, generator = bench.context(model, conversation.fault)
    app: Any = builder.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": conversation.id}, "recursion_limit": STEPS}
    for number, line in enumerate(conversation.lines):
        if isinstance(model, IdealDriver):
            model.line = line
        faults, error = generator.faults, ""
        values = changed(prompt=line.says, seed=number, run_id=uuid4().hex)
        try:
            app.invoke(values, config, context=context)
        except PleinairError as fault:
            error = str(fault)
        state = ReactState.model_validate(app.get_state(config).values)
        yield _result(conversation, number, state, context, bench.truth, generator.faults - faults, error)


def _result(
    conversation: Conversation,
    number: int,
    state: ReactState,
    context: Context,
    truth: Truth,
    injected: int,
    error: str,
) -> LineResult:
    line, usage = conversation.lines[number], Usage.total(state.usage)
    calls, errors = _count_calls(state)
    return LineResult(
        conversation=conversation.id,
        line=number,
        has_fault=bool(conversation.fault.kind),
        is_right=not error and _ended_as_expected(line, state, context, truth),
        calls=calls,
        invalid=errors - injected,
        wasted=max(0, calls - line.calls),
        images=usage.images,
        mllm_calls=usage.mllm_calls,
        ending=state.outcome.ending if state.outcome else "",
        error=error,
    )


def _count_calls(state: ReactState) -> tuple[int, int]:
    """Return the number of tool calls of the current request, and of those that failed.

    Calls that the end of the run came before count as calls only.
    """
    history = current_messages(state.messages)
    calls = sum(len(message.tool_calls) for message in history if isinstance(message, AIMessage))
    results = [message for message in history if isinstance(message, ToolMessage)]
    return calls, sum(result.status == "error" and result.text != ENDED for result in results)


def _ended_as_expected(line: Line, state: ReactState, context: Context, truth: Truth) -> bool:
    outcome = state.outcome
    if outcome is None or not line.draws:
        return outcome is not None and not state.attempts and outcome.ending in ("refused", "stopped")
    if outcome.best is None or len(state.attempts) > line.most_images:
        return False
    wanted = read(line.draws).request
    try:
        is_meant = same_request(complete(read(outcome.best.request.prompt).request), complete(wanted))
    except NotUnderstood:
        return False
    image = context.store.open(outcome.best.picture)
    phrases = [phrase_of(mention) for mention in wanted.mentions]
    return is_meant and all(truth.shows(image, phrase) for phrase in phrases if phrase not in line.lacks)


def summarise(results: Sequence[LineResult]) -> dict[str, Any]:
    """Return the measures of a driver, each with its 95 % interval (a bootstrap over conversations) and n.

    `recovered` is the share of the conversations with a fault all of whose lines ended as expected.
    """
    groups = [result.conversation for result in results]

    def per_line(name: str, most: float) -> dict[str, Any]:
        return estimate([float(getattr(result, name)) for result in results], 0, most, groups=groups)

    calls = [
        (result.conversation, call >= result.invalid) for result in results for call in range(result.calls)
    ]
    faulty = [result for result in results if result.has_fault]
    recovered = [
        all(result.is_right for result in faulty if result.conversation == id)
        for id in dict.fromkeys(result.conversation for result in faulty)
    ]
    return {
        "lines_right": per_line("is_right", 1),
        "calls_valid": estimate([float(valid) for _, valid in calls], 0, 1, groups=[id for id, _ in calls]),
        "wasted_calls": per_line("wasted", _MOST),
        "recovered": estimate([float(value) for value in recovered], 0, 1),
        "images": per_line("images", _MOST),
        "mllm_calls": per_line("mllm_calls", _MOST),
    }
