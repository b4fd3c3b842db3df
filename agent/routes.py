"""Where to go next: pure functions of the state."""

from __future__ import annotations

from typing import Literal

from langgraph.types import Send

from pleinair.agent.budget import PICTURE_AND_CHECK, limit
from pleinair.agent.ledger import best, is_complete
from pleinair.agent.plan import find
from pleinair.agent.state import LookUp, State


def route_after_critique(state: State) -> Literal["finish", "plan"]:
    """Stop when it is right, when a step ended the run, or when no further attempt is allowed."""
    good = best(state.attempts)
    if state.outcome or good is None or is_complete(good.ledger, state.concepts):
        return "finish"
    return "finish" if limit(state, PICTURE_AND_CHECK) else "plan"


def route_after_plan(state: State) -> list[Send] | Literal["select"]:
    """Look up every concept that wants its first reference, one task a concept."""
    wanted = [
        repair.concept
        for repair in state.repairs
        if repair.action == "add_reference" and not find(repair.concept, state.retrievals)
    ]
    tasks = [
        Send("retrieve", LookUp(name=concept.name, caption=concept.caption))
        for concept in state.concepts
        if concept.name in wanted
    ]
    return tasks or "select"
