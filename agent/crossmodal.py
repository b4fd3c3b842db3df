"""State, node functions and routes of the Cross-modal RAG graph (Zhu et al. 2025, arXiv v2, section 3).

One image is generated, from what its sub-queries find together; nothing looks at the result, as in the paper.
Sub-queries that no caption contains are retrieved by their looks, with the loop's own `retrieve`.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import compress, islice
from time import perf_counter
from typing import Annotated

from langgraph.channels import EphemeralValue
from langgraph.runtime import Runtime
from langgraph.types import Send
from pydantic import Field

from pleinair.agent import ledger, nodes
from pleinair.agent.context import Context
from pleinair.agent.nodes import Update
from pleinair.agent.select import (
    Pick,
    Unavailable,
    cover,
    free_slots,
    make_references,
    open_hit,
    score_table,
    until_available,
    unused_candidates,
)
from pleinair.agent.state import (
    IMAGE_AND_CRITIQUE,
    MLLM_CALL,
    ImageInput,
    Output,
    RetrieveTask,
    State,
    changed,
)
from pleinair.tools import crossmodal
from pleinair.tools.retrieval.crossmodal.dense import LazyScorer, SearchScorer
from pleinair.tools.retrieval.crossmodal.joint import Joint, retrieve_jointly
from pleinair.tools.retrieval.crossmodal.sparse import satisfaction
from pleinair.tools.retrieve import excluding, explained, no_retrieval, unlicensed_of
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import (
    Concept,
    Ending,
    Hit,
    NoLibrary,
    Outcome,
    Reference,
    Refused,
    Retrieval,
    Usage,
)


class CrossmodalInput(ImageInput):
    """Input of the Cross-modal RAG graph."""

    # the caller's sub-queries for this request, used as they are instead of the model's
    subqueries: Annotated[list[str], EphemeralValue] = Field(default_factory=list)


class CrossmodalOutput(Output):
    """Output of the Cross-modal RAG graph."""

    joint: Joint | None = None  # the joint retrieval, with the sub-queries of each image


class CrossmodalState(CrossmodalInput, CrossmodalOutput, State):
    """Working state of the Cross-modal RAG graph; the concepts are the sub-queries, in the prompt's order."""


def begin(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Reset the request's fields, and set the caller's own sub-queries if there are any."""
    update = nodes.begin(state, runtime)
    return update | _set_subqueries(crossmodal.checked(state.subqueries)) if state.subqueries else update


def decompose(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Split the prompt into sub-queries unless the caller did; a declined prompt ends the run."""
    if state.concepts or state.limit(IMAGE_AND_CRITIQUE):
        return {}
    context = runtime.context
    if context.crossmodal.dense and isinstance(context.scorer, LazyScorer):
        with suppress(NoLibrary):  # the search abstains
            context.scorer.open()  # an adaptor of another encoder is refused before the MLLM is paid
    try:
        subqueries, usage = crossmodal.list_subqueries(
            state.prompt,
            model=context.model,
            calls=state.calls_left,
            decomposition=context.crossmodal.decomposition,
        )
    except Refused as refusal:
        return changed(outcome=Outcome(ending="refused", reason=str(refusal)), usage=[refusal.spent])
    return _set_subqueries(subqueries) | changed(usage=[usage])


def _set_subqueries(subqueries: list[str]) -> Update:
    return changed(concepts=[Concept(name=text, caption=text) for text in subqueries])


def caption(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Write captions of library images that lack one, each stored as soon as it is paid for."""
    context, spent = runtime.context.of_papers, list(state.usage)
    total, book, retriever = context.crossmodal.captions, context.captions, context.retriever
    try:
        lacking = (hit for hit in retriever.entries() if book.lacks(hit, retriever, context.model))
        uncaptioned = list(islice(lacking, total))
    except NoLibrary:  # the search abstains
        return {}
    for done, hit in enumerate(uncaptioned, 1):
        if state.model_copy(update={"usage": spent}).limit(MLLM_CALL):
            break
        spent.append(write_caption(hit, context))
        runtime.stream_writer({"step": "caption", "done": done, "total": total})
        context.on_step(done, total)
    return changed(usage=spent[len(state.usage) :])


def write_caption(hit: Hit, context: Context) -> Usage:
    """Caption one image; one that the model declines gets an empty caption and is not tried again."""
    try:
        png = encode_png(open_hit(hit, context))
    except Unavailable:  # it is left out when references are made
        return Usage()
    try:
        text, usage = crossmodal.write_caption(png, model=context.model)
    except Refused as refusal:
        text, usage = "", refusal.spent
    context.captions.put(context.captions.key(hit.id, context.retriever, context.model), text)
    return usage


def search(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Retrieve the images that show the sub-queries together: captions, then looks, then the Pareto set."""
    started, retriever = perf_counter(), runtime.context.of_papers.retriever
    try:
        joint = _search_jointly(state, runtime.context.of_papers)
        excluded = _excluded(joint, runtime.context.of_papers)
    except NoLibrary as error:
        return changed(retrievals=[no_retrieval(concept, error) for concept in state.concepts])
    retrievals = [
        explained(excluding(_retrieval(joint, name, column), excluded.get(name, ())), retriever)
        for column, name in enumerate(state.concept_names)
    ]
    usage = Usage(seconds=perf_counter() - started)
    return changed(joint=joint, retrievals=retrievals, usage=[usage])


def _search_jointly(state: CrossmodalState, context: Context) -> Joint:
    entries = context.retriever.entries()
    if context.crossmodal.captions:
        entries = context.captions.filled(entries, context.retriever, context.model)
    return retrieve_jointly(
        entries,
        state.concept_names,
        scorer=context.scorer or SearchScorer(context.retriever),
        options=context.crossmodal,
        k=context.generator.capabilities.slots,
        seed=state.seed,
    )


def _excluded(joint: Joint, context: Context) -> dict[str, tuple[str, ...]]:
    """Return the images whose captions contain an uncovered sub-query, and which their licenses exclude.

    Of each sub-query the first `context.k`, in the library's order.
    """
    unlicensed = unlicensed_of(context.retriever) if joint.uncovered else None
    if unlicensed is None:
        return {}
    entries = unlicensed.entries()
    vectors = satisfaction([entry.caption for entry in entries], joint.uncovered)
    columns = zip(*vectors, strict=True) if vectors else ()
    ids = [entry.id for entry in entries]
    return {
        name: tuple(islice(compress(ids, column), context.k))
        for name, column in zip(joint.uncovered, columns, strict=False)
    }


def retrieve(state: RetrieveTask, runtime: Runtime[Context]) -> Update:
    """Retrieve a sub-query by the looks of images."""
    return nodes.retrieve(state, runtime.override(context=runtime.context.of_papers))


def select(state: CrossmodalState, runtime: Runtime[Context]) -> Update:
    """Fill the slots and set the request, whose prompt says what to take from which image."""
    context = runtime.context.of_papers

    def build(state: CrossmodalState) -> tuple[list[Pick], tuple[Reference, ...]]:
        picks = _pick_jointly(state, free_slots(state, context))
        return picks, make_references(picks, context)

    (picks, references), retrievals = until_available(state, build)
    subqueries = [[pick.concept, *pick.others] for pick in picks]
    prompt = crossmodal.instruct(context.crossmodal.template, state.prompt, subqueries, len(state.pictures))
    request = nodes.new_request(
        state, context, references=references, prompt=prompt, announced=prompt != state.prompt
    )
    return changed(request=request, retrievals=retrievals)


def finish(state: CrossmodalState) -> Update:
    """Set the outcome, with the sub-queries that no caption contains in its reason."""
    if state.outcome:
        return {}
    newest = ledger.latest(state.attempts)
    if newest is None:
        return changed(outcome=state.stopped(state.limit(IMAGE_AND_CRITIQUE), None))
    abstained = any(retrieval.abstained for retrieval in state.retrievals)
    bare = (state.joint is not None or abstained) and len(newest.request.references) <= len(state.pictures)
    ending: Ending = "stopped" if bare else "unchecked"
    first = "drawn without a reference" if bare else ledger.UNCHECKED
    reason = "; ".join(filter(None, (first, _report(state))))
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
    """Retrieve the sub-queries that no caption contains by their looks."""
    if not runtime.context.crossmodal.fallback:
        return "select"
    concepts = [Concept(name=name, caption=name) for name in _uncovered(state)]
    return nodes.retrieve_tasks(concepts, state.seed, runtime.context.of_papers.retriever) or "select"


def _uncovered(state: CrossmodalState) -> tuple[str, ...]:
    return state.joint.uncovered if state.joint else ()


def _retrieval(joint: Joint, name: str, column: int) -> Retrieval:
    """Return the part of a joint retrieval for one sub-query, each image with its cosine to it."""
    hits = [
        member.hit.model_copy(update={"score": member.cosines[column] if member.cosines else 0.0})
        for member in joint.members
        if name in member.satisfied
    ]
    reason = "" if hits else "no caption contains it"
    ranked = sorted(hits, key=lambda hit: (-hit.score, hit.id))
    return Retrieval(concept=name, query=name, hits=tuple(ranked), abstained=not hits, reason=reason)


def _pick_jointly(state: CrossmodalState, slots: int) -> list[Pick]:
    """Pick at most `slots` images, each with the sub-queries that it serves, in the prompt's order.

    All of the Pareto set if it fits, with one image for each sub-query that was retrieved by its looks. Else
    a greedy cover: the image that serves the most sub-queries not served yet, by the higher cosines on a
    tie, until all are served or the slots are full (ours; the paper has no limit).
    """
    candidates = _candidates(state)
    hits = {hit.id: hit for ranked in candidates.values() for hit in ranked}
    chosen = {pick.hit.id for pick in cover(candidates, slots)} if len(hits) > slots else hits.keys()
    served = {id: list(scores) for id, scores in score_table(candidates).items() if id in chosen}
    picks = [Pick(first, hits[id], tuple(others)) for id, (first, *others) in served.items()]
    rank = {name: number for number, name in enumerate(candidates)}
    return sorted(picks, key=lambda pick: [rank[name] for name in (pick.concept, *pick.others)])


def _candidates(state: CrossmodalState) -> dict[str, list[Hit]]:
    """Return the hits of each sub-query: those of the Pareto set, or the best one retrieved by its looks."""
    hits, by_looks = unused_candidates(state, state.concept_names), _uncovered(state)
    ranked = {name: hits[name][:1] if name in by_looks else hits[name] for name in state.concept_names}
    return {name: hits for name, hits in ranked.items() if hits}


def _report(state: CrossmodalState) -> str:
    """Return the sub-queries that no caption contains, what was done, and any warning about the method."""
    if state.joint is None:
        return ""
    results = {retrieval.concept: _found(retrieval) for retrieval in state.retrievals}
    missing = ", ".join(f"{name!r} ({results[name]})" for name in state.joint.uncovered)
    lines = (f"no caption contains {missing}" if missing else "", state.joint.warning)
    return "; ".join(filter(None, lines))


def _found(retrieval: Retrieval) -> str:
    """Return in words what was done about a sub-query that no caption contains."""
    if not retrieval.abstained:
        return "looked up instead"
    return retrieval.reason if retrieval.excluded_by_license or retrieval.unmet else "nothing found"
