"""The steps of the graph in which the model decides by tool calls, and when such a run is over.

The model's calls are carried out one after the other in the order written, neighbouring look-ups at once.
Each is a task of its own and its result is filed under the call's id, so a resumed run repeats none of them.
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

from pleinair.agent import budget, ledger, nodes
from pleinair.agent.context import Context
from pleinair.agent.nodes import Update
from pleinair.agent.react import prompts
from pleinair.agent.react import tools as toolbox
from pleinair.agent.react.messages import conversation, unjudged
from pleinair.agent.react.replies import Verdict, error, unheard, vet
from pleinair.agent.react.state import Act, ReactState, current, pending, rolled, stored
from pleinair.agent.state import changed
from pleinair.tools.mllm.ask import added, cost
from pleinair.tools.types import BadInput, Ending, ModelFault, Outcome, Refused, Usage

AT_ONCE = "retrieve"  # calls that cost nothing that must be counted between them
FRUITLESS = 3  # replies in a row of which nothing came: one, and two more that were told what was wrong
MOST_TEXT = 2000  # characters of the model's words that are told
SAME = 3  # times that a call brought the same result
PATHS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\][^\s'\"`,;]+")


def begin(state: ReactState, runtime: Runtime[Context]) -> Update:
    """Hear the user; what was before in the thread becomes a turn of its own."""
    fresh, heard = nodes.begin(state, runtime), stored(HumanMessage(state.prompt))
    if not fresh:
        return changed(messages=heard)
    kept = rolled(state)
    return fresh | kept | {"messages": Overwrite([*kept["messages"], *heard])}


def drive(state: ReactState, runtime: Runtime[Context]) -> Update:
    """Ask the model what to do next, unless calls are waiting or the run is over."""
    if route(state) != "drive":
        return {}
    verdict, usage = asked(state, runtime.context)
    if said := verdict.messages[0].text.strip(" …"):
        runtime.stream_writer({"step": "drive", "text": said[:MOST_TEXT]})
    shown = [one.number for one in unjudged(state.attempts)]
    update = changed(usage=[usage], shown=shown) | {"messages": stored(*verdict.messages)}
    return update | _ended(state, verdict)


def asked(state: ReactState, context: Context) -> tuple[Verdict, Usage]:
    """Put the conversation to the model and judge its reply; one that failed is paid for too."""
    started, offers = perf_counter(), toolbox.offered(context)
    try:
        reply = _whole(context.model).bind_tools(offers).invoke(conversation(state, context))
    except (Refused, ModelFault) as fault:
        paid = added(fault.spent, Usage(mllm_calls=1, seconds=perf_counter() - started))
        refused = str(fault) if isinstance(fault, Refused) else ""
        return unheard(str(fault), refused), paid
    verdict = vet(reply, current(state.messages), partial(toolbox.objection, offers=offers))
    return verdict, cost(reply, perf_counter() - started)


def _whole(model: BaseChatModel) -> BaseChatModel:
    """Have a model reply in one piece, also while the graph is streamed: a cut stream looks like a reply."""
    streams = type(model)._stream is not BaseChatModel._stream and not model.disable_streaming
    return model.model_copy(update={"disable_streaming": True}) if streams else model


def _ended(state: ReactState, verdict: Verdict) -> Update:
    """End a run whose model declined, or talks instead of drawing; a picture drawn before is kept."""
    best, said = ledger.best(state.attempts), verdict.refused or verdict.words
    if not said:
        return {}
    ending: Ending = "stopped" if best and not verdict.refused else "refused"
    return changed(outcome=Outcome(ending=ending, reason=said, limit=None, best=best))


def act(state: Act, runtime: Runtime[Context]) -> Update:
    """Carry out one call; an error that the model can act on is its result."""
    call, before = state["call"], ReactState.model_validate(state["snapshot"])
    try:
        text, update = toolbox.carry_out(call, before, runtime)
        answer = ToolMessage(text, tool_call_id=call["id"], name=call["name"])
    except (BadInput, ModelFault) as fault:
        runtime.stream_writer({"step": call["name"], "error": str(fault)})
        answer, update = error(call, _without_paths(str(fault))), changed(usage=[fault.spent])
    return update | {"messages": stored(answer)}


def _without_paths(text: str) -> str:
    """Take the places of this machine out of a text for the model."""
    return PATHS.sub("…", text)


def finish(state: ReactState) -> Update:
    """Say how it ended, with the best picture; calls that were not carried out are told so."""
    left = [error(call, prompts.ENDED) for call in pending(state.messages)]
    update: Update = {"messages": stored(*left)} if left else {}
    best = ledger.best(state.attempts)
    why = _impasse(state)
    if state.outcome or budget.limit(state, budget.PICTURE_AND_CHECK) or _is_right(state) or not why:
        return update | nodes.finish(state)
    return update | changed(outcome=Outcome(ending="stopped", reason=why, best=best))


def route(state: ReactState) -> list[Send] | Literal["drive", "finish"]:
    """Carry out what the model wants, ask it again, or stop."""
    if _is_over(state):
        return "finish"
    if calls := pending(state.messages):
        first = list(takewhile(lambda call: call["name"] == AT_ONCE, calls)) or calls[:1]
        snapshot = state.model_dump(mode="json", exclude={"messages", "turns"})
        return [Send("act", Act(call=call, snapshot=snapshot)) for call in first]
    return "finish" if _impasse(state) or budget.limit(state, budget.QUESTION) else "drive"


def _is_over(state: ReactState) -> bool:
    """Tell whether nothing that a call could bring is wanted or allowed any more."""
    if state.outcome or _is_right(state):
        return True
    return not unjudged(state.attempts) and bool(budget.limit(state, budget.PICTURE_AND_CHECK))


def _is_right(state: ReactState) -> bool:
    """Tell whether a judged picture has every concept."""
    best = ledger.best(state.attempts)
    return best is not None and ledger.is_complete(best.ledger, state.concepts)


def _impasse(state: ReactState) -> str:
    """Say why asking the model again is useless, "" if it is not."""
    heard = current(state.messages)
    replies = [one for one in heard if isinstance(one, AIMessage)]
    if len(replies) >= _most_replies(state):
        return f"no progress: the model replied {len(replies)} times without an end"
    if _fruitless(heard) >= FRUITLESS:
        return f"no progress: {_last_error(heard)}"
    results = [one for one in heard if isinstance(one, ToolMessage)]
    asked = {call["id"]: str((call["name"], call["args"])) for one in replies for call in one.tool_calls}
    counted = Counter((asked.get(one.tool_call_id, ""), one.text) for one in results)
    if counted and max(counted.values()) >= SAME:
        return f"no progress: the same call brought the same {SAME} times"
    return ""


def _most_replies(state: ReactState) -> int:
    """Limit the replies of one run by the pictures it may draw; a sober model needs a third of it."""
    return 4 + 6 * state.budget.attempts


def _fruitless(heard: Sequence[BaseMessage]) -> int:
    """Count the newest replies of which no call succeeded."""
    count = 0
    for one in reversed(heard):
        if isinstance(one, ToolMessage) and one.status == "success":
            break
        count += isinstance(one, AIMessage)
    return count


def _last_error(heard: Sequence[BaseMessage]) -> str:
    """Repeat what the model was told last."""
    told = [one.text for one in heard if not isinstance(one, AIMessage)]
    return told[-1] if told else "the model said nothing"
