"""The steps that RealRAG has and the loop has not (Lyu et al., ICML 2025, section 3).

No question is asked and nothing is broken down: the prompt as it is finds its references, and they are always
used. The draft is there for the variant of ours alone.
"""

from __future__ import annotations

from time import perf_counter
from typing import Literal

from langgraph.runtime import Runtime

from pleinair.agent import budget, ledger, nodes
from pleinair.agent import select as slots
from pleinair.agent.context import Context
from pleinair.agent.nodes import Update
from pleinair.agent.select import Pick
from pleinair.agent.state import State, changed
from pleinair.tools.realrag import require, search_away, training_of
from pleinair.tools.types import Hit, Limit, Repair, Retrieval, Usage

WHY = "every picture is drawn from what the prompt finds"


def draft(state: State, runtime: Runtime[Context]) -> Update:
    """Draw the generator's own attempt, for the look-up to keep away from."""
    _allow(runtime.context)
    if _obstacle(state, runtime.context):
        return {}
    return nodes.draft(state, runtime)


def retrieve(state: State, runtime: Runtime[Context]) -> Update:
    """Look the raw prompt up and take the first hits, however far they are."""
    context = runtime.context
    _allow(context)
    if _obstacle(state, context):
        return {}
    started = perf_counter()
    hits = _search(state, context)
    found = Retrieval(concept=state.prompt, query=state.prompt, hits=tuple(hits))
    return changed(retrievals=[found], usage=[Usage(seconds=perf_counter() - started)])


def _allow(context: Context) -> None:
    """Refuse a retriever, or a number of references, that this run cannot have."""
    require(context.realrag, training_of(context.retriever), context.generator.capabilities)


def _search(state: State, context: Context) -> list[Hit]:
    """Find the pictures near the prompt, and with a draft those that are also far from it."""
    options, k = context.realrag, max(context.k, context.realrag.references)
    own = ledger.latest(state.attempts)
    if own is None:
        return context.retriever.search(state.prompt, k)
    away = context.store.open(own.picture)
    return search_away(context.retriever, state.prompt, away, weight=options.weight, k=k)


def select(state: State, runtime: Runtime[Context]) -> Update:
    """Hand over the first hits as references, beside the prompt as it is and the run's own noise."""
    context, (found,) = runtime.context, state.retrievals
    picks = [Pick(found.concept, hit) for hit in found.hits[: context.realrag.references]]
    references = tuple(slots.make_reference(pick, context) for pick in picks)
    repair = Repair(concept=found.concept, action="add_reference", why=WHY)
    return changed(request=nodes.new_request(state, context, references=references), repairs=[repair])


def finish(state: State, runtime: Runtime[Context]) -> Update:
    """End unchecked, and say so where the picture that would count was not drawn."""
    newest = ledger.latest(state.attempts)
    if newest and newest.request.references:
        return nodes.finish_unchecked(state)
    before = "drawn without a reference: " if newest else ""
    return changed(outcome=budget.stopped(state, _obstacle(state, runtime.context), newest, before))


def _obstacle(state: State, context: Context) -> Limit | None:
    """Say what forbids the pictures that are still to come, None if nothing does."""
    if context.realrag.method != "self_contrast" or state.attempts:
        return budget.limit(state, budget.PICTURE)
    return "attempts" if state.budget.attempts < 2 else budget.limit(state, Usage(images=2))


def route_start(state: State, runtime: Runtime[Context]) -> Literal["draft", "retrieve"]:
    """Begin with a draft only for the variant that looks away from it."""
    return "draft" if runtime.context.realrag.method == "self_contrast" else "retrieve"


def route_after_draft(state: State) -> Literal["retrieve", "finish"]:
    """Go on where there is a draft."""
    return "retrieve" if state.attempts else "finish"


def route_after_retrieve(state: State) -> Literal["select", "finish"]:
    """Go on where something was looked up."""
    return "select" if state.retrievals else "finish"
