"""What the driving model is sent: the conversation, and last a card of where things stand with pictures.

Only the conversation is stored. The card and its pictures are made anew for every call, as a user's message
because Chat Completions allows no picture in the result of a tool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, SystemMessage

from pleinair.agent import budget, ledger
from pleinair.agent.context import Context
from pleinair.agent.react.prompts import DRIVE
from pleinair.agent.react.state import ReactState, current, last_drawn, read
from pleinair.agent.select import find_retrieval, unused_hits
from pleinair.tools.mllm.ask import human
from pleinair.tools.types import Attempt, Picture, Reference

MOST_SHOWN = 4  # pictures in one call


def conversation(state: ReactState, context: Context) -> list[BaseMessage]:
    """Build what the model is sent now."""
    pictures = [context.store.read(picture) for picture in _in_view(state)]
    return [SystemMessage(DRIVE), *read(state.messages), human(_card(state, context), pictures)]


def _in_view(state: ReactState) -> list[Picture]:
    """Choose the pictures to send: those not judged yet; for a new request the one that it may change."""
    fresh = [one.picture for one in unjudged(state.attempts)]
    if fresh or current(state.messages):
        return fresh
    turn = last_drawn(state.turns)
    return [turn.outcome.best.picture] if turn and turn.outcome.best else []


def unjudged(attempts: Sequence[Attempt]) -> list[Attempt]:
    """List the newest attempts without a ledger, at most as many as fit into one call."""
    return [one for one in attempts if one.ledger is None][-MOST_SHOWN:]


def _card(state: ReactState, context: Context) -> dict[str, Any]:
    """Say where things stand; the pictures that follow are of `shown`, in this order."""
    best = ledger.best(state.attempts)
    return {
        "prompt": state.prompt,
        "wish": state.wish,
        "concepts": [one.name for one in state.concepts],
        "shown": [one.number for one in unjudged(state.attempts)],
        "judged": [_judged(one) for one in state.attempts if one.ledger],
        "references": _used(best.request.references if best else ()),
        "looked_up": {one.concept: _left(state, one.concept) for one in state.retrievals},
        "vetoed": state.vetoes,
        "pinned": {one.concept: one.hit.id for one in state.pins},
        "given": _used(state.given),
        "before": _before(state),
        "slots": context.generator.capabilities.slots,
        "inpaint": context.generator.capabilities.inpaint,
        "pictures_left": _pictures_left(state),
    }


def _judged(attempt: Attempt) -> dict[str, Any]:
    """Repeat what was seen in a picture."""
    rows = attempt.ledger.rows if attempt.ledger else ()
    short = {"concept", "status", "confidence"}
    return {"picture": attempt.number, "rows": [row.model_dump(include=short) for row in rows]}


def _used(references: Sequence[Reference]) -> list[dict[str, str]]:
    """Name references."""
    return [{"concept": one.concept, "id": one.hit.id} for one in references]


def _left(state: ReactState, concept: str) -> list[str]:
    """List the hits of a concept that no picture was drawn from, best first."""
    retrieval = find_retrieval(concept, state.retrievals)
    hits = unused_hits(retrieval, state.attempts) if retrieval else []
    return [hit.id for hit in hits if hit.id not in state.vetoes]


def _before(state: ReactState) -> dict[str, Any] | None:
    """Say what the last request that came to a picture was."""
    last = last_drawn(state.turns)
    if last is None:
        return None
    best = last.outcome.best
    return {
        "wish": last.wish,
        "ending": last.outcome.ending,
        "references": _used(best.request.references if best else ()),
    }


def _pictures_left(state: ReactState) -> int:
    """Count the pictures that may still be drawn and checked."""
    if budget.limit(state, budget.PICTURE_AND_CHECK):
        return 0
    most = state.budget.attempts - len(state.attempts)
    drawn = budget.total(state.usage).images
    return most if state.budget.images is None else min(most, state.budget.images - drawn)
