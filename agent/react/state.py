"""What a thread remembers between the model's calls: plain JSON, and no pictures but by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage, messages_from_dict
from langchain_core.messages import message_to_dict as dumped
from pydantic import Field
from typing_extensions import TypedDict

from pleinair.agent import ledger
from pleinair.agent.react.schemas import Pin
from pleinair.agent.state import Input, State, by_concept, changed
from pleinair.tools.types import Concept, Outcome, Reference, Retrieval, Value

Message = dict[str, Any]  # as LangChain dumps one
NOTE = "pleinair_note"  # marks a message that the loop wrote and no user


def said(old: Sequence[Message], new: Sequence[Message]) -> list[Message]:
    """Append messages; the result of a call that has one already changes nothing."""
    answered = {one["data"]["tool_call_id"] for one in old if one["type"] == "tool"}
    return [*old, *(one for one in new if one["data"].get("tool_call_id") not in answered)]


class Turn(Value):
    """Keep what an earlier request of the thread came to."""

    wish: str  # what was to be drawn, in full
    concepts: tuple[Concept, ...] = ()
    outcome: Outcome


class ReactInput(Input):
    """What a caller gives besides; what is left out stays as the thread has it.

    `messages`, `turns` and `retrievals` are for a caller that carries a thread over to a new one.
    """

    messages: Annotated[list[Message], said] = Field(default_factory=list)
    turns: list[Turn] = Field(default_factory=list)
    retrievals: Annotated[list[Retrieval], by_concept] = Field(default_factory=list)
    vetoes: list[str] = Field(default_factory=list)  # ids of pictures that are never used
    pins: list[Pin] = Field(default_factory=list)
    given: list[Reference] = Field(default_factory=list)  # the user's own pictures, in the store already


class ReactState(ReactInput, State):
    """The working state; of the current request unless it says otherwise."""

    wish: str = ""  # what is to be drawn, in full: the prompt may be only a change to what was before
    shown: list[int] = Field(default_factory=list)  # attempts that the model saw before its last reply


class Act(TypedDict):
    """One `act` task: a call of the model's, and the state without its conversation."""

    call: dict[str, Any]
    snapshot: dict[str, Any]


def read(messages: Sequence[Message]) -> list[BaseMessage]:
    """Give stored messages as LangChain's."""
    return list(messages_from_dict(list(messages)))


def stored(*messages: BaseMessage) -> list[Message]:
    """Give messages as plain JSON; a reply that holds what is no JSON raises TypeError."""
    return [json.loads(json.dumps(dumped(message))) for message in messages]


def note(text: str) -> HumanMessage:
    """Write a message of the loop's own to the model."""
    return HumanMessage(text, additional_kwargs={NOTE: True})


def current(messages: Sequence[Message]) -> list[BaseMessage]:
    """Give the messages since the user last spoke."""
    heard = read(messages)
    starts = [number for number, one in enumerate(heard) if _is_user(one)]
    return heard[starts[-1] + 1 :] if starts else heard


def _is_user(message: BaseMessage) -> bool:
    """Tell whether a message is the user's."""
    return isinstance(message, HumanMessage) and NOTE not in message.additional_kwargs


def pending(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """List the calls of the newest reply that have no result, in the order written."""
    heard = current(messages)
    replies = [one for one in heard if isinstance(one, AIMessage)]
    done = {one.tool_call_id for one in heard if isinstance(one, ToolMessage)}
    calls = replies[-1].tool_calls if replies else []
    return [dict(call) for call in calls if call["id"] not in done]


def rolled(state: ReactState) -> dict[str, Any]:
    """Give what a thread keeps when a request is over: its pictures, ledgers, look-ups and in short its talk.

    The calls and results of an earlier request are left out: what came of them is in its turn.
    """
    best = ledger.best(state.attempts)
    outcome = state.outcome or Outcome(ending="cancelled", reason="it was not finished", best=best)
    ended = Turn(wish=state.wish or state.prompt, concepts=tuple(state.concepts), outcome=outcome)
    words = [one for one in read(state.messages) if _is_user(one) or _is_summary(one)]
    return changed(
        messages=stored(*words, _summary(ended)),
        turns=[*state.turns, ended],
        retrievals=state.retrievals,
        vetoes=state.vetoes,
        pins=state.pins,
        given=state.given,
    )


def last_drawn(turns: Sequence[Turn]) -> Turn | None:
    """Find the newest request that came to a picture."""
    return next((turn for turn in reversed(turns) if turn.outcome.best), None)


def _summary(turn: Turn) -> AIMessage:
    """Say in one message what came of a request."""
    used = turn.outcome.best.request.references if turn.outcome.best else ()
    facts = {
        "drawn": turn.wish if turn.outcome.best else "",
        "ending": turn.outcome.ending,
        "reason": turn.outcome.reason,
        "references": [{"concept": one.concept, "id": one.hit.id} for one in used],
    }
    return AIMessage(json.dumps(facts, ensure_ascii=False), additional_kwargs={NOTE: True})


def _is_summary(message: BaseMessage) -> bool:
    """Tell whether a message stands for an earlier request's calls."""
    return isinstance(message, AIMessage) and NOTE in message.additional_kwargs
