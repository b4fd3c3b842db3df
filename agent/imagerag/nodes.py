"""The steps that ImageRAG has and the loop has not (ICLR 2026, section 3 and appendix D).

Personalisation is no mode of its own: it is what happens when a run is given pictures. Each step that asks a
model has its own node, so that a resumed run does not ask again what was answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from langgraph.runtime import Runtime
from langgraph.types import Send

from pleinair.agent import budget, ledger, nodes, routes
from pleinair.agent import select as slots
from pleinair.agent.context import Context
from pleinair.agent.crossmodal.nodes import write as write_caption
from pleinair.agent.imagerag.state import (
    ImageRAGState,
    captions,
    given,
    in_order,
    is_new,
    kept,
    obstacle,
    pick,
    room,
    rounds_left,
    tries,
)
from pleinair.agent.nodes import Update
from pleinair.agent.state import LookUp, changed
from pleinair.tools import imagerag
from pleinair.tools.retrieval.lexical import score_captions
from pleinair.tools.retrieval.rerank import EACH
from pleinair.tools.retrieval.rerank import rerank as order
from pleinair.tools.retrieve import retrieve as look_up
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import (
    Concept,
    Ending,
    GenerateRequest,
    Hit,
    Outcome,
    Refused,
    Repair,
    Retrieval,
    Usage,
)

LOOKED_AT = 2 * EACH  # hits that the model looks at


def rerank(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Order each new look-up's hits by the model's look or its captions; without questions they stay."""
    context, spent, done = runtime.context, list(state.usage), []
    by = _by_captions if context.imagerag.rerank == "captions" else _by_looks
    for found in [one for one in state.retrievals if one.hits and not one.abstained]:
        if is_new(state, found):
            hits, usage = by(found, state.model_copy(update={"usage": list(spent)}), context)
            spent += usage
            done.append(found.model_copy(update={"hits": tuple(hits)}))
    return changed(retrievals=done, usage=spent[len(state.usage) :])


def _by_looks(found: Retrieval, state: ImageRAGState, context: Context) -> tuple[Sequence[Hit], list[Usage]]:
    """Let the model look at the hits and order them, in one question."""
    if _no_question_left(state, context):
        return found.hits, []
    pictures = [encode_png(context.retriever.open(hit.id)) for hit in found.hits[:LOOKED_AT]]
    hits, usage = order(found.query, found.hits, pictures, model=context.model)
    return hits, [usage]


def _by_captions(
    found: Retrieval, state: ImageRAGState, context: Context
) -> tuple[Sequence[Hit], list[Usage]]:
    """Have hits without a caption captioned, a question each, and order all by BM25 of their captions."""
    spent: list[Usage] = []
    for hit in found.hits[:LOOKED_AT]:
        key = "" if hit.caption else context.captions.key(hit.id, context.retriever, context.model)
        so_far = state.model_copy(update={"usage": [*state.usage, *spent]})
        if key and context.captions.get(key) is None and not _no_question_left(so_far, context):
            spent.append(write_caption(hit, context))
    told = context.captions.filled(found.hits, context.retriever, context.model)
    scored = zip(found.hits, score_captions(told, found.query), strict=True)
    return [hit for hit, _ in sorted(scored, key=lambda pair: -pair[1])], spent


def _no_question_left(state: ImageRAGState, context: Context) -> bool:
    """Tell whether another question would leave none for the look at the result, where rounds ask for one."""
    return bool(budget.limit(state, Usage(mllm_calls=2 if context.imagerag.rounds > 1 else 1)))


def draft(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Draw the prompt with nothing but the user's own pictures."""
    request = nodes.new_request(state, runtime.context, references=given(state))
    return nodes.attempt(state, runtime, request, ())


def decide(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Look at the newest picture; where it matches, it is the answer and nothing more is looked up."""
    newest = ledger.latest(state.attempts)
    if newest is None or budget.limit(state, budget.QUESTION):
        return changed(decision=None)
    try:
        decision, usage = imagerag.decide(_talk(state, runtime.context))
    except Refused as refusal:
        return _ended(state, "refused", str(refusal)) | changed(usage=[refusal.spent])
    rest = changed(decision=decision, usage=[usage])
    if decision.match:
        which = "picture" if newest.repairs else "draft"
        skipped = "" if newest.repairs or state.retrievals else ", so nothing was looked up"
        return _ended(state, "accepted", f"the {which} matches{skipped}: {decision.why}") | rest
    if rounds_left(state, runtime.context) < 1:
        return _ended(state, "stopped", f"no match: {decision.why}") | rest
    return rest


def find_missing(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """List what is missing, or before the first picture all that is needed."""
    if runtime.context.imagerag.retrieve_by == "prompt":
        return changed(missing=[])
    names, usage = imagerag.list_concepts(_talk(state, runtime.context), tries(state, runtime.context))
    return changed(missing=names, usage=usage)


def caption(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Caption what is missing; with nothing named, the prompt is the caption."""
    options = runtime.context.imagerag
    if not state.missing:
        return _chosen([_whole(imagerag.one_line(state.prompt))], [])
    if options.retrieve_by == "concepts":
        return _chosen([_whole(name) for name in state.missing], [])
    try:
        concepts, usage = imagerag.write_captions(_talk(state, runtime.context), options.captions)
    except Refused as refusal:
        return _ended(state, "refused", str(refusal)) | changed(usage=[refusal.spent])
    return _chosen(concepts, [usage])


def retrieve(state: LookUp, runtime: Runtime[Context]) -> Update:
    """Take the most similar picture for each caption, however similar it is unless there is a threshold."""
    started, context = perf_counter(), runtime.context
    options, concept = context.imagerag, Concept.model_validate(state)
    threshold = -1.0 if options.threshold is None else options.threshold
    found = [
        look_up(
            Concept(name=concept.name, caption=line),
            retriever=context.retriever,
            # a round tries what the rounds before have left
            k=max(options.rounds, LOOKED_AT if options.rerank else 1),
            threshold=threshold,
        )
        for line in concept.caption.splitlines()
    ]
    return changed(retrievals=[imagerag.merge(found)], usage=[Usage(seconds=perf_counter() - started)])


def select(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Fill the slots, the first of the list first, and fix the next request.

    References of the round before stay for concepts that are no longer missing, as far as there is room. The
    user's own pictures come first, and the others as the prompt names their concepts.
    """
    context, own, space = runtime.context, given(state), room(state, runtime.context)
    picks = pick(state, context)
    new = tuple(slots.make_reference(one, context) for one in picks)
    references = in_order((*kept(state)[: space - len(new)], *new), state.prompt)
    prompt = imagerag.augment(
        context.imagerag.template, state.prompt, captions(state, references), before=len(own)
    )
    request = nodes.new_request(state, context, references=(*own, *references), prompt=prompt)
    served = {one.concept for one in picks}
    return _fixed(state, request, [one for one in state.repairs if one.concept in served])


def rephrase(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Fix the next request with the prompt in other words and nothing looked up."""
    context = runtime.context
    try:
        prompt, usage = imagerag.rephrase(_talk(state, context))
    except Refused as refusal:
        return _ended(state, "refused", str(refusal)) | changed(usage=[refusal.spent])
    request = nodes.new_request(state, context, references=given(state), prompt=prompt)
    repair = Repair(concept=state.prompt, action="reword", why=prompt)
    return _fixed(state, request, [repair]) | changed(usage=[usage])


def finish(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Say how it ended: a result that nobody looked at is never called a match."""
    if not state.outcome and rounds_left(state, runtime.context):
        limit, newest = obstacle(state, runtime.context), ledger.latest(state.attempts)
        if limit == "slots":
            return _ended(state, "stopped", "no slot is free for a reference")
        return changed(outcome=budget.stopped(state, limit, newest))
    if not state.outcome and not state.attempts[-1].repairs:
        return _ended(state, "stopped", f"drawn without a reference: {_why_not(state)}")
    return nodes.finish_unchecked(state)


def route_start(state: ImageRAGState, runtime: Runtime[Context]) -> str:
    """Begin with a draft, or at once with the look-up."""
    draws = runtime.context.imagerag.mode == "draft_first"
    return "draft" if draws else route_after_decide(state, runtime)


def route_after_decide(state: ImageRAGState, runtime: Runtime[Context]) -> str:
    """Go on where there is no match and a whole pass is allowed."""
    if state.outcome or obstacle(state, runtime.context):
        return "finish"
    return "rephrase" if runtime.context.imagerag.rephrase_only else "find_missing"


def route_after_caption(state: ImageRAGState, runtime: Runtime[Context]) -> list[Send] | str:
    """Look the captions up, unless the model declined to write them."""
    return "finish" if state.outcome else routes.route_after_plan(state, runtime)


def route_after_retrieve(state: ImageRAGState, runtime: Runtime[Context]) -> str:
    """Let the model order what was found, where that is wanted."""
    return "rerank" if runtime.context.imagerag.rerank else "select"


def route_to_generate(state: ImageRAGState) -> str:
    """Draw the request, unless it brings nothing new."""
    return "finish" if state.outcome else "generate"


def route_after_generate(state: ImageRAGState, runtime: Runtime[Context]) -> str:
    """Look at the result only where the rounds ask for it: the paper's experiments do not."""
    return "decide" if runtime.context.imagerag.rounds > 1 else "finish"


def _talk(state: ImageRAGState, context: Context) -> imagerag.Talk:
    """Rebuild the conversation of this round; the pictures are read from the store."""
    newest = ledger.latest(state.attempts)
    return imagerag.Talk(
        model=context.model,
        prompt=state.prompt,
        given=tuple(context.store.read(picture) for picture in state.pictures),
        drawn=context.store.read(newest.picture) if newest else None,
        decision=state.decision,
        missing=tuple(state.missing),
        room=room(state, context),
        calls=budget.calls_left(state),
    )


def _whole(text: str) -> Concept:
    """Look a text up as it is."""
    return Concept(name=text, caption=text)


def _chosen(concepts: list[Concept], usage: list[Usage]) -> Update:
    """Set the missing concepts, each to be repaired by a reference."""
    repairs = [Repair(concept=one.name, action="add_reference", why=one.caption) for one in concepts]
    return changed(concepts=concepts, repairs=repairs, usage=usage)


def _fixed(state: ImageRAGState, request: GenerateRequest, repairs: list[Repair]) -> Update:
    """Set the next request; one that was drawn before is not paid for again."""
    if not any(done.request == request for done in state.attempts):
        return changed(request=request, repairs=repairs)
    return _ended(state, "stopped", f"nothing new to draw from: {_why_not(state)}")


def _why_not(state: ImageRAGState) -> str:
    """Say why the look-ups gave nothing."""
    reasons = dict.fromkeys(found.reason for found in state.retrievals if found.reason)
    return "; ".join(reasons) or "all was tried"


def _ended(state: ImageRAGState, ending: Ending, reason: str) -> Update:
    """End with the newest picture, which is the paper's answer."""
    best = ledger.latest(state.attempts)
    return changed(outcome=Outcome(ending=ending, reason=reason, best=best))
