"""Node functions and routes of the RealRAG graph (Lyu et al., ICML 2025, section 3).

The model is not called and nothing is decomposed: the raw prompt finds its references, and they are always
used. The draft is only for our variant, which needs no training.
"""

from __future__ import annotations

from time import perf_counter
from typing import Literal

from langgraph.runtime import Runtime

from pleinair.agent import ledger, nodes
from pleinair.agent.context import Context
from pleinair.agent.nodes import Update
from pleinair.agent.select import Pick, free_slots, make_references, until_available
from pleinair.agent.state import IMAGE, State, changed
from pleinair.tools.realrag import require, search_away, training_of
from pleinair.tools.retrieve import NOTHING, excluding, explained, no_retrieval, search, unlicensed_of
from pleinair.tools.types import (
    Concept,
    Hit,
    Limit,
    NoLibrary,
    Outcome,
    Reference,
    Repair,
    Retrieval,
    Retriever,
    Usage,
)

_WHY = "every image is generated from what the prompt retrieves"


def draft(state: State, runtime: Runtime[Context]) -> Update:
    """Generate an image without references, for the retrieval to keep away from."""
    _require_engines(state, runtime.context)
    return {} if _obstacle(state, runtime.context) else nodes.draft(state, runtime)


def retrieve(state: State, runtime: Runtime[Context]) -> Update:
    """Retrieve by the raw prompt; the first hits are used whatever their scores."""
    context = runtime.context.of_papers
    _require_engines(state, context)
    if _obstacle(state, context):
        return {}
    started = perf_counter()
    try:
        retrieval = _retrieval(state, context)
    except NoLibrary as error:
        retrieval = no_retrieval(Concept(name=state.prompt, caption=state.prompt), error)
    return changed(retrievals=[retrieval], usage=[Usage(seconds=perf_counter() - started)])


def _require_engines(state: State, context: Context) -> None:
    """Raise `BadInput` for a retriever, or a number of references, that the run cannot use."""
    negative = context.image.merged(state.image).negative_prompt or ""
    require(context.realrag, training_of(context.retriever), context.capabilities(state.image), negative)


def _retrieval(state: State, context: Context) -> Retrieval:
    """Retrieve by the prompt; abstain only if the library has no image, or none with an accepted license."""
    hits, prompt = tuple(_search(state, context, context.retriever)), state.prompt
    if hits:
        return Retrieval(concept=prompt, query=prompt, hits=hits)
    retrieval = Retrieval(concept=prompt, query=prompt, hits=(), abstained=True, reason=NOTHING)
    unlicensed = unlicensed_of(context.retriever)
    others = _search(state, context, unlicensed) if unlicensed else []
    return explained(excluding(retrieval, tuple(hit.id for hit in others)), context.retriever)


def _search(state: State, context: Context, retriever: Retriever) -> list[Hit]:
    """Return the images near the prompt, and if there is a draft those that are also far from it."""
    options, k = context.realrag, max(context.k, context.realrag.references)
    newest = ledger.latest(state.attempts)
    if newest is None:
        return search(retriever, state.prompt, k, state.seed)
    image = context.store.open(newest.picture)
    return search_away(retriever, state.prompt, image, weight=options.weight, k=k)


def select(state: State, runtime: Runtime[Context]) -> Update:
    """Set the request to the raw prompt with the first hits as references and the run's own seed."""
    context = runtime.context.of_papers

    def build(state: State) -> tuple[Reference, ...]:
        (retrieval,) = state.retrievals
        hits = [hit for hit in retrieval.hits if retrieval.accepts(hit)]
        count = min(context.realrag.references, free_slots(state, context))
        picks = [Pick(retrieval.concept, hit) for hit in hits[:count]]
        return make_references(picks, context)

    references, retrievals = until_available(state, build)
    request = nodes.new_request(state, context, references=references)
    repair = Repair(concept=state.retrievals[0].concept, action="add_reference", why=_WHY)
    return changed(request=request, repairs=[repair] if references else [], retrievals=retrievals)


def finish(state: State, runtime: Runtime[Context]) -> Update:
    """Set the outcome, unchecked; its reason says if no image was generated from references."""
    newest = ledger.latest(state.attempts)
    if newest and len(newest.request.references) > len(state.pictures):
        return nodes.finish_unchecked(state)
    before = "drawn without a reference: " if newest else ""
    if newest and state.retrievals and state.retrievals[0].abstained:
        reason = f"{before}{state.retrievals[0].reason}"
        return changed(outcome=Outcome(ending="stopped", limit=None, reason=reason, best=newest))
    return changed(outcome=state.stopped(_obstacle(state, runtime.context), newest, before))


def _obstacle(state: State, context: Context) -> Limit | None:
    """Return the limit that forbids the remaining images, None if none does."""
    if context.realrag.method != "self_contrast" or state.attempts:
        return state.limit(IMAGE)
    return "attempts" if state.budget.attempts < 2 else state.limit(Usage(images=2))


def route_start(state: State, runtime: Runtime[Context]) -> Literal["draft", "retrieve"]:
    """Route to the draft only with the method that keeps away from it."""
    return "draft" if runtime.context.realrag.method == "self_contrast" else "retrieve"


def route_after_draft(state: State) -> Literal["retrieve", "finish"]:
    """Continue if there is a draft."""
    return "retrieve" if state.attempts else "finish"


def route_after_retrieve(state: State) -> Literal["select", "finish"]:
    """Continue if something was retrieved."""
    return "select" if state.retrievals else "finish"
