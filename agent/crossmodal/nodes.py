"""The steps that Cross-modal RAG has and the loop has not (Zhu et al. 2025, arXiv v2, section 3).

Every picture is drawn once, from what its sub-queries find together; nobody looks at the result, as in the
paper. Sub-queries that no caption contains are looked up by their looks, with the loop's own step.
"""

from __future__ import annotations

from time import perf_counter

from langgraph.runtime import Runtime
from langgraph.types import Send

from pleinair.agent import budget, ledger, nodes
from pleinair.agent import nodes as beginning
from pleinair.agent import select as slots
from pleinair.agent.context import Context
from pleinair.agent.crossmodal.state import CrossmodalState, chosen, look_ups, names, report, uncovered
from pleinair.agent.nodes import Update
from pleinair.agent.select import Pick
from pleinair.agent.state import LookUp, changed
from pleinair.tools import crossmodal
from pleinair.tools.retrieval.crossmodal.dense import SearchScorer
from pleinair.tools.retrieval.crossmodal.joint import retrieve_jointly
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import Concept, Ending, Hit, Outcome, Refused, Usage


def begin(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Begin anew, with the caller's own sub-queries where it gives any."""
    fresh = beginning.begin(state, runtime)
    if not state.subqueries:
        return fresh
    return fresh | changed(concepts=[_whole(one) for one in crossmodal.checked(state.subqueries)])


def decompose(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Break the prompt into sub-queries unless the caller gave them; a declined prompt ends the run."""
    if state.concepts:
        return {}
    if budget.limit(state, budget.PICTURE_AND_CHECK):
        return {}
    try:
        found, usage = crossmodal.list_subqueries(
            state.prompt, model=runtime.context.model, calls=budget.calls_left(state)
        )
    except Refused as refusal:
        return changed(outcome=Outcome(ending="refused", reason=str(refusal)), usage=[refusal.spent])
    return changed(concepts=[_whole(one) for one in found], usage=[usage])


def caption(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Have pictures without a caption captioned, each kept as soon as it is paid for."""
    context, spent = runtime.context, list(state.usage)
    most = context.crossmodal.captions
    for done, hit in enumerate(_unknown(context)[:most], 1):
        if budget.limit(state.model_copy(update={"usage": spent}), budget.QUESTION):
            break
        spent.append(write(hit, context))
        runtime.stream_writer({"step": "caption", "done": done, "total": most})
        context.on_step(done, most)
    return changed(usage=spent[len(state.usage) :])


def search(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Find the pictures that show the sub-queries together: captions, then looks, then the Pareto set."""
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
    return changed(joint=joint, retrievals=look_ups(joint, names(state)), usage=[usage])


def select(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Fill the slots and fix the request, its instruction saying what to take from which picture."""
    context = runtime.context
    picks = chosen(state, context.generator.capabilities.slots)
    shown = [Pick(first, hit, tuple(others)) for hit, (first, *others) in picks.values()]
    references = tuple(slots.make_reference(one, context) for one in shown)
    prompt = crossmodal.instruct(
        context.crossmodal.template, state.prompt, [served for _, served in picks.values()]
    )
    return changed(request=nodes.new_request(state, context, references=references, prompt=prompt))


def finish(state: CrossmodalState) -> Update:
    """Say how it ended, and which sub-queries no caption contained."""
    if state.outcome:
        return {}
    newest = ledger.latest(state.attempts)
    if newest is None:
        return changed(outcome=budget.stopped(state, budget.limit(state, budget.PICTURE_AND_CHECK), None))
    bare = state.joint is not None and not newest.request.references
    ending: Ending = "stopped" if bare else "unchecked"
    first = "drawn without a reference" if bare else ledger.UNCHECKED
    reason = "; ".join(filter(None, (first, report(state))))
    return changed(outcome=Outcome(ending=ending, reason=reason, best=newest))


def route_start(state: CrossmodalState, runtime: Runtime[Context]) -> str:
    """Begin with the sub-queries, or draw at once where nothing is to be looked up."""
    return "decompose" if runtime.context.crossmodal.rag else "draft"


def route_after_decompose(state: CrossmodalState, runtime: Runtime[Context]) -> str:
    """Go on with the sub-queries, over captions where those are to be written."""
    if state.outcome or not state.concepts:
        return "finish"
    return "caption" if runtime.context.crossmodal.captions else "search"


def route_after_search(state: CrossmodalState, runtime: Runtime[Context]) -> list[Send] | str:
    """Look up by their looks the sub-queries that no caption contains, one task each."""
    if not runtime.context.crossmodal.fallback:
        return "select"
    return [Send("retrieve", LookUp(name=one, caption=one)) for one in uncovered(state)] or "select"


def _whole(subquery: str) -> Concept:
    """Look a sub-query up as it is."""
    return Concept(name=subquery, caption=subquery)


def _unknown(context: Context) -> list[Hit]:
    """List the pictures without a caption of which nothing is known yet."""
    book, retriever, model = context.captions, context.retriever, context.model
    bare = [one for one in retriever.entries() if not one.caption]
    return [one for one in bare if book.get(book.key(one.id, retriever, model)) is None]


def write(hit: Hit, context: Context) -> Usage:
    """Caption one picture; a declined one gets an empty caption and is not asked for again."""
    png = encode_png(context.retriever.open(hit.id))
    try:
        text, usage = crossmodal.write_caption(png, model=context.model)
    except Refused as refusal:
        text, usage = "", refusal.spent
    context.captions.put(context.captions.key(hit.id, context.retriever, context.model), text)
    return usage
