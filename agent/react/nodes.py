"""Node functions and route of the react graph, in which the model decides by tool calls, and when it ends.

The model's calls are carried out one after the other in the order written, neighbouring retrievals in
parallel. Each is a task of its own, with its result stored under the call's id: a resumed run repeats none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from time import perf_counter
from typing import Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.runtime import Runtime
from langgraph.types import Overwrite, Send

from pleinair.agent import ledger, nodes
from pleinair.agent.context import Context
from pleinair.agent.nodes import Update
from pleinair.agent.react import messages, tools
from pleinair.agent.react.messages import CheckedReply, error_result, unjudged
from pleinair.agent.react.state import (
    Act,
    ReactState,
    archive_request,
    current_messages,
    pending_calls,
    to_json,
)
from pleinair.agent.state import IMAGE_AND_CRITIQUE, MLLM_CALL, changed
from pleinair.tools.mllm.ask import call, usage_of
from pleinair.tools.types import BadInput, Ending, ModelFault, Outcome, Refused, Usage

_PARALLEL = "retrieve"  # calls whose cost need not be counted between them
_MAX_FRUITLESS = 3  # replies in a row without a successful call: one, and two more after the error
_MAX_STREAMED = 2000  # characters of the model's text on the custom stream
_MAX_REPEATED = 3  # times that a call had the same result
_PATHS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\][^\s'\"`,;]+")


def begin(state: ReactState, runtime: Runtime[Context]) -> Update:
    """Add the user's message; an earlier request of the thread becomes a turn."""
    update, message = nodes.begin(state, runtime), to_json(HumanMessage(state.prompt))
    if not update:
        return changed(messages=message)
    archive = archive_request(state)
    return update | archive | {"messages": Overwrite([*archive["messages"], *message])}


def drive(state: ReactState, runtime: Runtime[Context]) -> Update:
    """Call the model for what to do next, unless calls are pending or the run is over."""
    if route_after_drive(state) != "drive":
        return {}
    reply, usage = _call_model(state, runtime.context)
    if text := reply.messages[0].text.strip(" …"):
        runtime.stream_writer({"step": "drive", "text": text[:_MAX_STREAMED]})
    shown = [attempt.number for attempt in unjudged(state.attempts)]
    update = changed(usage=[usage], shown=shown) | {"messages": to_json(*reply.messages)}
    return update | _end(state, reply)


def _call_model(state: ReactState, context: Context) -> tuple[CheckedReply, Usage]:
    """Send the conversation to the model and check its reply; a failed call costs too."""
    started, offered = perf_counter(), tools.offered_tools(context)
    try:
        model = _without_streaming(context.model)
        reply = call(model.bind_tools(offered), messages.conversation(state, context), model)
    except (Refused, ModelFault) as fault:
        usage = Usage.total([fault.spent, Usage(mllm_calls=1, seconds=perf_counter() - started)])
        return messages.failed_reply(str(fault), str(fault) if isinstance(fault, Refused) else ""), usage
    check_call = partial(tools.call_fault, offered=offered)
    checked = messages.check_reply(reply, current_messages(state.messages), check_call)
    return checked, usage_of(reply, perf_counter() - started)


def _without_streaming(model: BaseChatModel) -> BaseChatModel:
    """Return a model that does not stream within a streamed graph: a cut stream looks like a reply."""
    streams = type(model)._stream is not BaseChatModel._stream and not model.disable_streaming
    return model.model_copy(update={"disable_streaming": True}) if streams else model


def _end(state: ReactState, reply: CheckedReply) -> Update:
    """Set the outcome if the model declined, or answers in text instead of calls; earlier images are kept."""
    best, reason = ledger.best(state.attempts), reply.refusal or reply.answer
    if not reason:
        return {}
    ending: Ending = "stopped" if best and not reply.refusal else "refused"
    return changed(outcome=Outcome(ending=ending, reason=reason, limit=None, best=best))


def act(state: Act, runtime: Runtime[Context]) -> Update:
    """Carry out one tool call; an error that the model can act on is its result."""
    call, snapshot = state["call"], ReactState.model_validate(state["snapshot"])
    try:
        text, update = tools.run_call(call, snapshot, runtime)
        result = ToolMessage(text, tool_call_id=call["id"], name=call["name"])
    except (BadInput, ModelFault) as fault:
        runtime.stream_writer({"step": call["name"], "error": str(fault)})
        # the model is not sent the paths of this machine
        result, update = error_result(call, _PATHS.sub("…", str(fault))), changed(usage=[fault.spent])
    return update | {"messages": to_json(result)}


def finish(state: ReactState) -> Update:
    """Set the outcome with the best image, and the results of calls that were not carried out."""
    results = [error_result(call, messages.ENDED) for call in pending_calls(state.messages)]
    update: Update = {"messages": to_json(*results)} if results else {}
    reason = _impasse(state)
    if state.outcome or state.limit(IMAGE_AND_CRITIQUE) or _is_complete(state) or not reason:
        return update | nodes.finish(state)
    best = ledger.best(state.attempts)
    return update | changed(outcome=Outcome(ending="stopped", reason=reason, best=best))


def route_after_drive(state: ReactState) -> list[Send] | Literal["drive", "finish"]:
    """Carry out the pending calls, call the model again, or stop."""
    if _is_over(state):
        return "finish"
    if calls := pending_calls(state.messages):
        batch = list(takewhile(lambda call: call["name"] == _PARALLEL, calls)) or calls[:1]
        snapshot = state.model_dump(mode="json", exclude={"messages", "turns"})
        return [Send("act", Act(call=call, snapshot=snapshot)) for call in batch]
    return "finish" if _impasse(state) or state.limit(MLLM_CALL) else "drive"


def _is_over(state: ReactState) -> bool:
    """Return whether no call can improve the result any more."""
    if state.outcome or _is_complete(state):
        return True
    return not unjudged(state.attempts) and bool(state.limit(IMAGE_AND_CRITIQUE))


def _is_complete(state: ReactState) -> bool:
    best = ledger.best(state.attempts)
    return best is not None and ledger.is_complete(best.ledger, state.concepts)


def _impasse(state: ReactState) -> str:
    """Return why calling the model again is useless, "" if it is not."""
    history = current_messages(state.messages)
    ai_messages = [message for message in history if isinstance(message, AIMessage)]
    # a model that makes progress needs a third of these replies
    if len(ai_messages) >= 4 + 6 * state.budget.attempts:
        return f"no progress: the model replied {len(ai_messages)} times without an end"
    if _fruitless(history) >= _MAX_FRUITLESS:
        errors = [message.text for message in history if not isinstance(message, AIMessage)]
        return f"no progress: {errors[-1] if errors else 'the model said nothing'}"
    results = [message for message in history if isinstance(message, ToolMessage)]
    all_calls = (call for message in ai_messages for call in message.tool_calls)
    calls = {call["id"]: str((call["name"], call["args"])) for call in all_calls}
    counts = Counter((calls.get(result.tool_call_id, ""), result.text) for result in results)
    if counts and max(counts.values()) >= _MAX_REPEATED:
        return f"no progress: the same call brought the same {_MAX_REPEATED} times"
    return ""


def _fruitless(history: Sequence[BaseMessage]) -> int:
    """Return the number of newest replies without a successful call."""
    count = 0
    for message in reversed(history):
        if isinstance(message, ToolMessage) and message.status == "success":
            break
        count += isinstance(message, AIMessage)
    return count
