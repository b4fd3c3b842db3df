"""State, node functions and routes of the ImageRAG graph (ICLR 2026, section 3 and appendix D).

Personalisation is no mode of its own: it is a run with input images. Each MLLM call has a node of its own, so
that a resumed run does not repeat an answered call.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby, zip_longest
from time import perf_counter
from typing import Literal

from langgraph.runtime import Runtime
from langgraph.types import Send
from pydantic import Field

from pleinair.agent import ledger, nodes
from pleinair.agent.context import Context
from pleinair.agent.crossmodal import write_caption
from pleinair.agent.nodes import Update
from pleinair.agent.select import (
    Pick,
    Unavailable,
    free_slots,
    make_references,
    open_hit,
    order_by_prompt,
    retained_references,
    until_available,
    unused_candidates,
    used_ids,
)
from pleinair.agent.state import IMAGE, MLLM_CALL, RetrieveTask, State, changed
from pleinair.tools import imagerag
from pleinair.tools.mllm.schemas import Decision
from pleinair.tools.prompt_options import without_placeholders
from pleinair.tools.retrieval.lexical import score_captions
from pleinair.tools.retrieval.rerank import EACH
from pleinair.tools.retrieval.rerank import rerank as rerank_hits
from pleinair.tools.retrieve import retrieve_all
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import (
    Concept,
    Ending,
    GenerateRequest,
    Hit,
    Limit,
    Outcome,
    Reference,
    Refused,
    Repair,
    Retrieval,
    Usage,
)

_RERANKED = 2 * EACH  # hits that are shown to the model or captioned


class ImageRAGState(State):
    """Working state of the ImageRAG graph; a later round replaces the answers of an earlier one."""

    decision: Decision | None = None  # whether the newest image matches the prompt
    missing: list[str] = Field(default_factory=list)  # concepts to retrieve references for


def decide(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Ask whether the newest image matches the prompt, and end the run if it does."""
    newest = ledger.latest(state.attempts)
    if newest is None or state.limit(MLLM_CALL):
        return changed(decision=None)
    try:
        decision, usage = imagerag.decide(_conversation(state, runtime.context))
    except Refused as refusal:
        return _end(state, "refused", str(refusal)) | changed(usage=[refusal.spent])
    update = changed(decision=decision, usage=[usage])
    if decision.match:
        image = "image" if newest.repairs else "draft"
        skipped = "" if newest.repairs or state.retrievals else ", so nothing was retrieved"
        return _end(state, "accepted", f"the {image} matches{skipped}: {decision.why}") | update
    if _rounds_left(state, runtime.context) < 1:
        return _end(state, "stopped", f"no match: {decision.why}") | update
    return update


def find_missing(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """List the missing concepts, or before the first image all that are needed."""
    if runtime.context.imagerag.retrieve_by == "prompt":
        return changed(missing=[])
    tries = _concept_tries(state, runtime.context)
    names, usage = imagerag.list_concepts(_conversation(state, runtime.context), tries)
    return changed(missing=names, usage=usage)


def caption(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Write captions of the missing concepts; if none is missing, the prompt is the caption."""
    options, usage = runtime.context.imagerag, list[Usage]()
    names = state.missing or [without_placeholders(state.prompt) or imagerag.one_line(state.prompt)]
    concepts = [Concept(name=name, caption=name) for name in names]
    if state.missing and options.retrieve_by == "captions":
        try:
            concepts, spent = imagerag.write_captions(_conversation(state, runtime.context), options.captions)
        except Refused as refusal:
            return _end(state, "refused", str(refusal)) | changed(usage=[refusal.spent])
        usage = [spent]
    repairs = [
        Repair(concept=concept.name, action="add_reference", why=concept.caption) for concept in concepts
    ]
    return changed(concepts=concepts, repairs=repairs, usage=usage)


def retrieve(state: RetrieveTask, runtime: Runtime[Context]) -> Update:
    """Retrieve by each caption of a concept; without a threshold of ImageRAG's own any score will do."""
    started, context = perf_counter(), runtime.context.of_papers
    options = context.imagerag
    retrievals = retrieve_all(
        [
            Concept(name=concept.name, caption=line)
            for concept in nodes.concepts_of(state)
            for line in concept.caption.splitlines()
        ],
        retriever=context.retriever,
        # a later round uses the hits that the rounds before have left
        k=max(options.rounds, _RERANKED if options.rerank else 1),
        threshold=-1.0 if options.threshold is None else options.threshold,
        seed=state.get("seed", 0),
    )
    merged = [imagerag.merge(list(group)) for _, group in groupby(retrievals, lambda each: each.concept)]
    return changed(retrievals=merged, usage=[Usage(seconds=perf_counter() - started)])


def rerank(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Order the hits of retrievals that served no image yet, by the model or by captions."""
    context, spent, reranked = runtime.context.of_papers, list(state.usage), []
    order = _order_by_captions if context.imagerag.rerank == "captions" else _order_by_model
    for retrieval in state.retrievals:
        is_new = retrieval.concept in state.concept_names and not used_ids(retrieval.concept, state.attempts)
        if is_new and retrieval.hits and not retrieval.abstained:
            hits, usage = order(retrieval, state.model_copy(update={"usage": list(spent)}), context)
            spent += usage
            reranked.append(retrieval.model_copy(update={"hits": tuple(hits)}))
    return changed(retrievals=reranked, usage=spent[len(state.usage) :])


def _order_by_model(
    retrieval: Retrieval, state: ImageRAGState, context: Context
) -> tuple[Sequence[Hit], list[Usage]]:
    """Show the model the first hits in one call, and return all hits in its order."""
    if _is_spent(state, context):
        return retrieval.hits, []
    images: dict[str, bytes] = {}
    for hit in retrieval.hits[:_RERANKED]:
        with suppress(Unavailable):  # it is left out when references are made
            images[hit.id] = encode_png(open_hit(hit, context))
    shown = [hit for hit in retrieval.hits if hit.id in images]
    others = [hit for hit in retrieval.hits if hit.id not in images]
    if not shown:
        return others, []
    hits, usage = rerank_hits(retrieval.query, [*shown, *others], list(images.values()), model=context.model)
    return hits, [usage]


def _order_by_captions(
    retrieval: Retrieval, state: ImageRAGState, context: Context
) -> tuple[Sequence[Hit], list[Usage]]:
    """Caption the first hits that lack a caption, a call each, and order all hits by BM25 of the captions."""
    spent: list[Usage] = []
    for hit in retrieval.hits[:_RERANKED]:
        current = state.model_copy(update={"usage": [*state.usage, *spent]})
        if context.captions.lacks(hit, context.retriever, context.model) and not _is_spent(current, context):
            spent.append(write_caption(hit, context))
    captioned = context.captions.filled(retrieval.hits, context.retriever, context.model)
    scored = zip(retrieval.hits, score_captions(captioned, retrieval.query), strict=True)
    return [hit for hit, _ in sorted(scored, key=lambda pair: -pair[1])], spent


def _is_spent(state: ImageRAGState, context: Context) -> bool:
    """Return whether another MLLM call would leave none for the decision that rounds end with."""
    return bool(state.limit(Usage(mllm_calls=2 if context.imagerag.rounds > 1 else 1)))


def select(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Fill the slots and set the next request.

    References of the round before stay for concepts that are no longer missing, as far as slots are free. The
    input images come first, then the others in the order in which the prompt names their concepts.
    """
    context = runtime.context.of_papers

    def build(state: ImageRAGState) -> tuple[list[Pick], tuple[Reference, ...]]:
        picks = _pick_by_rank(state, context)
        return picks, make_references(picks, context)

    (picks, made), retrievals = until_available(state, build)
    retained = retained_references(ledger.latest(state.attempts), state.concept_names)
    retained = retained[: _free_slots(state, context) - len(picks)]
    references = order_by_prompt((*retained, *made), state.prompt)
    found = {retrieval.concept: retrieval for retrieval in state.retrievals}
    captions = [found[reference.concept].query_of(reference.hit) for reference in references]
    prompt = imagerag.augment(
        context.imagerag.template,
        state.prompt,
        captions,
        before=len(state.pictures),
        placeholders=context.generator.capabilities.placeholders,
    )
    request = nodes.new_request(
        state, context, references=references, prompt=prompt, announced=prompt != state.prompt
    )
    concepts = {pick.concept for pick in picks}
    repairs = [repair for repair in state.repairs if repair.concept in concepts]
    return _set_request(state, request, repairs) | changed(retrievals=retrievals)


def rephrase(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Set the next request to the prompt in other words, with no reference retrieved."""
    context = runtime.context.of_papers
    try:
        prompt, usage = imagerag.rephrase(_conversation(state, context))
    except Refused as refusal:
        return _end(state, "refused", str(refusal)) | changed(usage=[refusal.spent])
    request = nodes.new_request(state, context, prompt=prompt)
    repair = Repair(concept=state.prompt, action="reword", why=prompt)
    return _set_request(state, request, [repair]) | changed(usage=[usage])


def finish(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Set the outcome; a result that was not looked at is never called a match."""
    if not state.outcome and _rounds_left(state, runtime.context):
        limit, newest = _obstacle(state, runtime.context), ledger.latest(state.attempts)
        if limit == "slots":
            return _end(state, "stopped", "no slot is free for a reference")
        return changed(outcome=state.stopped(limit, newest))
    if not state.outcome and not state.attempts[-1].repairs:
        return _end(state, "stopped", f"drawn without a reference: {_why_not(state)}")
    return nodes.finish_unchecked(state)


def route_start(state: ImageRAGState, runtime: Runtime[Context]) -> str:
    """Route to the draft, or in generation mode directly to retrieval."""
    drafts = runtime.context.imagerag.mode == "draft_first"
    return "draft" if drafts else route_after_decide(state, runtime)


def route_after_decide(state: ImageRAGState, runtime: Runtime[Context]) -> str:
    """Start a round if there is no match and a whole round is allowed."""
    if state.outcome or _obstacle(state, runtime.context):
        return "finish"
    return "rephrase" if runtime.context.imagerag.rephrase_only else "find_missing"


def route_after_caption(state: ImageRAGState, runtime: Runtime[Context]) -> list[Send] | str:
    """Retrieve by the captions, unless the model declined to write them."""
    return "finish" if state.outcome else nodes.route_after_plan(state, runtime)


def route_after_retrieve(state: ImageRAGState, runtime: Runtime[Context]) -> str:
    """Route to the re-ranking if it is switched on."""
    return "rerank" if runtime.context.imagerag.rerank else "select"


def route_to_generate(state: ImageRAGState) -> str:
    """Generate the request, unless it brings nothing new."""
    return "finish" if state.outcome else "generate"


def route_after_generate(state: ImageRAGState, runtime: Runtime[Context]) -> str:
    """Decide on the result only with several rounds: the paper's experiments do not look at it."""
    return "decide" if runtime.context.imagerag.rounds > 1 else "finish"


def _conversation(state: ImageRAGState, context: Context) -> imagerag.Conversation:
    """Rebuild the conversation of this round; the images are read from the store."""
    newest = ledger.latest(state.attempts)
    return imagerag.Conversation(
        model=context.model,
        prompt=state.prompt,
        inputs=tuple(context.store.read(picture) for picture in state.pictures),
        newest=context.store.read(newest.picture) if newest else None,
        decision=state.decision,
        missing=tuple(state.missing),
        slots=_free_slots(state, context),
        calls=state.calls_left,
    )


def _set_request(state: ImageRAGState, request: GenerateRequest, repairs: list[Repair]) -> Update:
    """Set the next request, or end where it was generated before: it is not paid for again."""
    if not any(attempt.request == request for attempt in state.attempts):
        return changed(request=request, repairs=repairs)
    return _end(state, "stopped", f"nothing new to draw from: {_why_not(state)}")


def _why_not(state: ImageRAGState) -> str:
    reasons = dict.fromkeys(retrieval.reason for retrieval in state.retrievals if retrieval.reason)
    return "; ".join(reasons) or "all was tried"


def _end(state: ImageRAGState, ending: Ending, reason: str) -> Update:
    """Set the outcome with the newest image, which is the paper's answer."""
    best = ledger.latest(state.attempts)
    return changed(outcome=Outcome(ending=ending, reason=reason, best=best))


def _pick_by_rank(state: ImageRAGState, context: Context) -> list[Pick]:
    """Pick every concept's first unused hit, then every concept's second, until the free slots are used."""
    candidates = unused_candidates(state, state.concept_names)
    most = context.imagerag.captions
    picks = [[Pick(name, hit) for hit in candidates.get(name, [])[:most]] for name in state.concept_names]
    ranked = [pick for rank in zip_longest(*picks) for pick in rank if pick]
    return ranked[: _free_slots(state, context)]


def _free_slots(state: ImageRAGState, context: Context) -> int:
    """Return the references that fit beside the input images; at most one with the template "image"."""
    slots = free_slots(state, context)
    return min(slots, 1) if context.imagerag.template == "image" else slots


def _rounds_left(state: ImageRAGState, context: Context) -> int:
    drafts = int(context.imagerag.mode == "draft_first")
    return context.imagerag.rounds + drafts - len(state.attempts)


def _concept_tries(state: ImageRAGState, context: Context) -> int:
    """Return the tries of the concept call that the budget leaves besides the captions."""
    limit, tries = state.budget.mllm_calls, context.imagerag.tries
    spent = Usage.total(state.usage).mllm_calls
    return tries if limit is None else min(tries, limit - spent - _calls_per_round(context) + 1)


def _calls_per_round(context: Context) -> int:
    """Return the MLLM calls of one round, with the decision on its result where rounds have one."""
    options = context.imagerag
    calls = 1 if options.rephrase_only else {"captions": 2, "concepts": 1, "prompt": 0}[options.retrieve_by]
    return calls + (options.rounds > 1)


def _obstacle(state: ImageRAGState, context: Context) -> Limit | Literal["slots"] | None:
    """Return what forbids another round, a limit or the lack of a free slot; None if nothing does."""
    if not state.decision and (state.attempts or context.imagerag.mode == "draft_first"):
        return state.limit(MLLM_CALL if state.attempts else IMAGE) or "seconds"
    if _free_slots(state, context) < 1 and not context.imagerag.rephrase_only:
        return "slots"
    return state.limit(Usage(images=1, mllm_calls=_calls_per_round(context)))
