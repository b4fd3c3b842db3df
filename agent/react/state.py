"""State of the react graph: what a thread keeps between the model's replies, as plain JSON without images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    message_to_dict,
    messages_from_dict,
)
from pydantic import Field
from typing_extensions import TypedDict

from pleinair.agent import ledger
from pleinair.agent.approval.nodes import ApprovedState
from pleinair.agent.react.schemas import Pin
from pleinair.agent.select import references_of
from pleinair.agent.state import ImageInput, by_concept, changed
from pleinair.tools.types import Concept, Outcome, Reference, Retrieval, Value

Message = dict[str, Any]  # as LangChain dumps one
MOST_REQUESTS = 16  # of a thread's earlier ones that the model reads; each is repeated in every run of a chat
_NOTE = "pleinair_note"  # marks a message that the graph wrote and neither user nor model


def append_messages(messages: Sequence[Message], update: Sequence[Message]) -> list[Message]:
    """Append messages; a second result for the same call is dropped (a reducer)."""
    answered = {message["data"]["tool_call_id"] for message in messages if message["type"] == "tool"}
    added = [message for message in update if message["data"].get("tool_call_id") not in answered]
    return [*messages, *added]


class Turn(Value):
    """Summary of an earlier request of the thread."""

    wish: str  # what was to be generated, in full
    concepts: tuple[Concept, ...] = ()
    outcome: Outcome


class ReactInput(ImageInput):
    """Input of the react graph; a field that is left out stays as the thread has it.

    `messages`, `turns` and `retrievals` are for a caller that continues a thread in a new one.
    """

    messages: Annotated[list[Message], append_messages] = Field(default_factory=list)  # the conversation
    turns: list[Turn] = Field(default_factory=list)  # the last request, and the last that has an image
    retrievals: Annotated[list[Retrieval], by_concept] = Field(default_factory=list)  # of the whole thread
    vetoes: list[str] = Field(default_factory=list)  # ids of hits that are never used
    pins: list[Pin] = Field(default_factory=list)  # concepts that are bound to a hit
    given: list[Reference] = Field(default_factory=list)  # input images, already in the store


class ReactState(ReactInput, ApprovedState):
    """Working state of the react graph; a field is of the current request unless it says otherwise."""

    wish: str = ""  # what is to be generated, in full: the prompt may only change an earlier request
    shown: list[int] = Field(default_factory=list)  # attempts that the model saw before its last reply


class Act(TypedDict):
    """Input of one `act` task."""

    call: dict[str, Any]  # the tool call
    snapshot: dict[str, Any]  # the state without its conversation


def to_json(*messages: BaseMessage) -> list[Message]:
    """Return messages as plain JSON; raise TypeError for content that is not JSON."""
    return [json.loads(json.dumps(message_to_dict(message))) for message in messages]


def note(text: str, kind: str = "") -> HumanMessage:
    """Return a message of the graph's own to the model; `note_kind` reads its kind."""
    return HumanMessage(text, additional_kwargs={_NOTE: kind})


def note_kind(message: BaseMessage) -> str:
    """Return the kind of a message of the graph's own, "" for any other."""
    return str(message.additional_kwargs.get(_NOTE, ""))


def current_messages(messages: list[Message]) -> list[BaseMessage]:
    """Return the messages after the user's last one."""
    history = messages_from_dict(messages)
    starts = [number for number, message in enumerate(history) if _is_user(message)]
    return history[starts[-1] + 1 :] if starts else history


def _is_user(message: BaseMessage) -> bool:
    return isinstance(message, HumanMessage) and _NOTE not in message.additional_kwargs


def pending_calls(messages: list[Message]) -> list[dict[str, Any]]:
    """Return the calls of the newest reply that have no result, in the order written."""
    history = current_messages(messages)
    replies = [message for message in history if isinstance(message, AIMessage)]
    answered = {message.tool_call_id for message in history if isinstance(message, ToolMessage)}
    calls = replies[-1].tool_calls if replies else []
    return [dict(call) for call in calls if call["id"] not in answered]


def archive_request(state: ReactState) -> dict[str, Any]:
    """Return the update that turns a finished request into a turn, and its messages into a summary.

    The user's messages stay; the calls and results are dropped: what came of them is in the turn. The
    thread's vetoes, pins and input images stay; of its messages and retrievals those of the last requests, so
    that a long thread costs no more a request than a short one.
    """
    best = ledger.best(state.attempts)
    outcome = state.outcome or Outcome(ending="cancelled", reason="it was not finished", best=best)
    turn = Turn(wish=state.wish or state.prompt, concepts=tuple(state.concepts), outcome=outcome)
    history = [
        message
        for message in messages_from_dict(state.messages)
        if _is_user(message) or (isinstance(message, AIMessage) and _NOTE in message.additional_kwargs)
    ]
    last_image = last_turn_with_image([*state.turns, turn])
    return changed(
        messages=to_json(*_last_requests([*history, _summary(turn)])),
        turns=[turn] if last_image in (None, turn) else [last_image, turn],
        retrievals=state.retrievals[-MOST_REQUESTS:],
        vetoes=state.vetoes,
        pins=state.pins,
        given=state.given,
    )


def _last_requests(history: list[BaseMessage]) -> list[BaseMessage]:
    """Return the messages of the last requests, each of which begins with the user's."""
    starts = [number for number, message in enumerate(history) if _is_user(message)]
    return history[starts[-MOST_REQUESTS] :] if len(starts) > MOST_REQUESTS else history


def last_turn_with_image(turns: Sequence[Turn]) -> Turn | None:
    """Return the newest request that produced an image."""
    return next((turn for turn in reversed(turns) if turn.outcome.best), None)


def _summary(turn: Turn) -> AIMessage:
    """Return one message with the result of a request."""
    facts = {
        "drawn": turn.wish if turn.outcome.best else "",
        "ending": turn.outcome.ending,
        "reason": turn.outcome.reason,
        "references": reference_ids(references_of(turn.outcome.best)),
    }
    return AIMessage(json.dumps(facts, ensure_ascii=False), additional_kwargs={_NOTE: True})


def reference_ids(references: Sequence[Reference]) -> list[dict[str, str]]:
    """Return the concept and the hit's id of each reference, as JSON for the model."""
    return [{"concept": reference.concept, "id": reference.hit.id} for reference in references]
