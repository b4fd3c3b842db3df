"""Node functions and routes of the Cross-modal RAG graph (Zhu et al. 2025, arXiv v2, section 3).

One image is generated, from what its sub-queries find together; nothing looks at the result, as in the paper.
Sub-queries that no caption contains are retrieved by their looks, with the loop's own `retrieve`.
"""

from __future__ import annotations

from time import perf_counter

from langgraph.runtime import Runtime
from langgraph.types import Send

from pleinair.agent import budget, ledger, nodes
from pleinair.agent.context import Context
from pleinair.agent.crossmodal.state import (
    CrossmodalState,
    names,
    pick_jointly,
    report,
    retrievals_of,
    uncovered,
)
from pleinair.agent.nodes import Update
from pleinair.agent.select import make_references
from pleinair.agent.state import RetrieveTask, changed
from pleinair.tools import crossmodal
from pleinair.tools.retrieval.crossmodal.dense import SearchScorer
from pleinair.tools.retrieval.crossmodal.joint import retrieve_jointly
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import Concept, Ending, Hit, Outcome, Refused, Usage


def begin(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Reset the request's fields, and set the caller's own sub-queries if there are any."""
    update = nodes.begin(state, runtime)
    return update | _set_subqueries(crossmodal.checked(state.subqueries)) if state.subqueries else update


def decompose(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Split the prompt into sub-queries unless the caller did; a declined prompt ends the run."""
    if state.concepts or budget.limit(state, budget.IMAGE_AND_CRITIQUE):
        return {}
    try:
        subqueries, usage = crossmodal.list_subqueries(
            state.prompt, model=runtime.context.model, calls=budget.calls_left(state)
        )
    except Refused as refusal:
        return changed(outcome=Outcome(ending="refused", reason=str(refusal)), usage=[refusal.spent])
    return _set_subqueries(subqueries) | changed(usage=[usage])


def _set_subqueries(subqueries: list[str]) -> Update:
    return changed(concepts=[Concept(name=text, caption=text) for text in subqueries])


def caption(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Write captions of library images that lack one, each stored as soon as it is paid for."""
    context, spent = runtime.context, list(state.usage)
    total = context.crossmodal.captions
    for done, hit in enumerate(_uncaptioned(context)[:total], 1):
        if budget.limit(state.model_copy(update={"usage": spent}), budget.MLLM_CALL):
            break
        spent.append(write_caption(hit, context))
        runtime.stream_writer({"step": "caption", "done": done, "total": total})
        context.on_step(done, total)
    return changed(usage=spent[len(state.usage) :])


def _uncaptioned(context: Context) -> list[Hit]:
    """Return the library images for which no caption was given or written."""
    book, retriever, model = context.captions, context.retriever, context.model
    return [
        hit
        for hit in retriever.entries()
        if not hit.caption and book.get(book.key(hit.id, retriever, model)) is None
    ]


def write_caption(hit: Hit, context: Context) -> Usage:
    """Caption one image; one that the model declines gets an empty caption and is not tried again."""
    png = encode_png(context.retriever.open(hit.id))
    try:
        text, usage = crossmodal.write_caption(png, model=context.model)
    except Refused as refusal:
        text, usage = "", refusal.spent
    context.captions.put(context.captions.key(hit.id, context.retriever, context.model), text)
    return usage


def search(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Retrieve the images that show the sub-queries together: captions, then looks, then the Pareto set."""
    started, context = perf_counter(), runtime.context
    entries = context.retriever.entries()
    if context.crossmodal.captions:
        entries = context.captions.filled(entries, context.retriever, context.model)
    joint = retrieve_jointly(
        entries,
        names(state),
        scorer=context.scorer or SearchScorer(context.retriever),
        options=context.crossmodal,
        k=context.generator.capabilities.slots,
        seed=state.seed,
    )
    usage = Usage(seconds=perf_counter() - started)
    return changed(joint=joint, retrievals=retrievals_of(joint, names(state)), usage=[usage])


def select(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Fill the slots and set the request, whose prompt says what to take from which image."""
    context = runtime.context
    picks = pick_jointly(state, context.generator.capabilities.slots)
    subqueries = [[pick.concept, *pick.others] for pick in picks]
    prompt = crossmodal.instruct(context.crossmodal.template, state.prompt, subqueries)
    references = make_references(picks, context)
    return changed(request=nodes.new_request(state, context, references=references, prompt=prompt))


def finish(state: CrossmodalState) -> Update:
    """Set the outcome, with the sub-queries that no caption contains in its reason."""
    if state.outcome:
        return {}
    newest = ledger.latest(state.attempts)
    if newest is None:
        return changed(outcome=budget.stopped(state, budget.limit(state, budget.IMAGE_AND_CRITIQUE), None))
    bare = state.joint is not None and not newest.request.references
    ending: Ending = "stopped" if bare else "unchecked"
    first = "drawn without a reference" if bare else ledger.UNCHECKED
    reason = "; ".join(filter(None, (first, report(state))))
    return changed(outcome=Outcome(ending=ending, reason=reason, best=newest))


def route_start(state: CrossmodalState, runtime: Runtime[Context]) -> str:
    """Route to the sub-queries, or without retrieval directly to the image."""
    return "decompose" if runtime.context.crossmodal.rag else "draft"


def route_after_decompose(state: CrossmodalState, runtime: Runtime[Context]) -> str:
    """Continue with the sub-queries, by way of the captions if those are to be written."""
    if state.outcome or not state.concepts:
        return "finish"
    return "caption" if runtime.context.crossmodal.captions else "search"


def route_after_search(state: CrossmodalState, runtime: Runtime[Context]) -> list[Send] | str:
    """Retrieve the sub-queries that no caption contains by their looks, one task each."""
    if not runtime.context.crossmodal.fallback:
        return "select"
    return [Send("retrieve", RetrieveTask(name=name, caption=name)) for name in uncovered(state)] or "select"
