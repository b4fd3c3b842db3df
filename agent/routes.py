"""Routes of the loop: pure functions of the state and of the generator's capabilities."""

from __future__ import annotations

from typing import Literal

from langgraph.runtime import Runtime
from langgraph.types import Send

from pleinair.agent.context import Context
from pleinair.agent.ledger import best, is_complete
from pleinair.agent.select import find_retrieval
from pleinair.agent.state import IMAGE_AND_CRITIQUE, RetrieveTask, State


def route_after_critique(state: State, runtime: Runtime[Context]) -> Literal["finish", "plan"]:
    """Stop when an image is right, when a node ended the run, or when no further attempt is allowed.

    A draft of few steps that is right is generated once more in full, with nothing to repair.
    """
    best_attempt = best(state.attempts)
    if state.outcome or best_attempt is None:
        return "finish"
    if is_complete(best_attempt.ledger, state.concepts) and not _only_drafts(state, runtime.context):
        return "finish"
    return "finish" if state.limit(IMAGE_AND_CRITIQUE) else "plan"


def _only_drafts(state: State, context: Context) -> bool:
    """Return whether every image so far was generated in fewer steps than the generator's own."""
    full = context.capabilities(state.image).num_inference_steps
    return all(attempt.request.num_inference_steps < full for attempt in state.attempts)


def route_after_plan(state: State, runtime: Runtime[Context]) -> list[Send] | Literal["select"]:
    """Retrieve for every concept that needs its first reference, one task a concept."""
    actions = [
        "add_reference",
        *(["inpaint"] if runtime.context.generator.capabilities.inpaint_slots else []),
    ]
    names = [
        repair.concept
        for repair in state.repairs
        if repair.action in actions and not find_retrieval(repair.concept, state.retrievals)
    ]
    tasks = [
        Send("retrieve", RetrieveTask(name=concept.name, caption=concept.caption, seed=state.seed))
        for concept in state.concepts
        if concept.name in names
    ]
    return tasks or "select"
