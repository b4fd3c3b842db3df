"""Where to go next: pure functions of the state, and of what the generator declares."""

from __future__ import annotations

from typing import Literal

from langgraph.runtime import Runtime
from langgraph.types import Send

from pleinair.agent.budget import PICTURE_AND_CHECK, limit
from pleinair.agent.context import Context
from pleinair.agent.ledger import best, is_complete
from pleinair.agent.repairs.plan import find
from pleinair.agent.state import LookUp, State


def route_after_critique(state: State, runtime: Runtime[Context]) -> Literal["finish", "plan"]:
    """Stop when it is right, when a step ended the run, or when no further attempt is allowed.

    A draft of few steps that is right is drawn once more in full, with nothing to repair.
    """
    good = best(state.attempts)
    if state.outcome or good is None:
        return "finish"
    if is_complete(good.ledger, state.concepts) and not _only_drafts(state, runtime.context):
        return "finish"
    return "finish" if limit(state, PICTURE_AND_CHECK) else "plan"


def _only_drafts(state: State, context: Context) -> bool:
    """Tell whether every picture so far was drawn in fewer steps than the generator's own."""
    full = context.generator.capabilities.num_inference_steps
    return all(attempt.request.num_inference_steps < full for attempt in state.attempts)


def route_after_plan(state: State, runtime: Runtime[Context]) -> list[Send] | Literal["select"]:
    """Look up every concept that wants its first reference, one task a concept."""
    bringing = ["add_reference"]
    if runtime.context.generator.capabilities.inpaint_slots:
        bringing.append("inpaint")
    wanted = [
        repair.concept
        for repair in state.repairs
        if repair.action in bringing and not find(repair.concept, state.retrievals)
    ]
    tasks = [
        Send("retrieve", LookUp(name=concept.name, caption=concept.caption))
        for concept in state.concepts
        if concept.name in wanted
    ]
    return tasks or "select"
