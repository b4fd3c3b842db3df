"""ImageRAG's re-ranking of what was looked up (ICLR 2026, table 4): by the model's look, or its captions."""

from __future__ import annotations

from collections.abc import Sequence

from langgraph.runtime import Runtime

from pleinair.agent import budget
from pleinair.agent.context import Context
from pleinair.agent.crossmodal import write as write_caption
from pleinair.agent.imagerag_state import ImageRAGState, is_new
from pleinair.agent.nodes import Update
from pleinair.agent.state import changed
from pleinair.tools.artifacts import encode_png
from pleinair.tools.retrieval.lexical import score_captions
from pleinair.tools.retrieval.rerank import EACH
from pleinair.tools.retrieval.rerank import rerank as order
from pleinair.tools.types import Hit, Retrieval, Usage

LOOKED_AT = 2 * EACH  # hits that the model looks at


def rerank(state: ImageRAGState, runtime: Runtime[Context]) -> Update:
    """Order each new look-up's hits by the model's look or its captions; without questions they stay."""
    context, spent, done = runtime.context, list(state.usage), []
    by = by_captions if context.imagerag.rerank == "captions" else by_looks
    for found in [one for one in state.retrievals if one.hits and not one.abstained]:
        if is_new(state, found):
            hits, usage = by(found, state.model_copy(update={"usage": list(spent)}), context)
            spent += usage
            done.append(found.model_copy(update={"hits": tuple(hits)}))
    return changed(retrievals=done, usage=spent[len(state.usage) :])


def by_looks(found: Retrieval, state: ImageRAGState, context: Context) -> tuple[Sequence[Hit], list[Usage]]:
    """Let the model look at the hits and order them, in one question."""
    if no_question_left(state, context):
        return found.hits, []
    pictures = [encode_png(context.retriever.open(hit.id)) for hit in found.hits[:LOOKED_AT]]
    hits, usage = order(found.query, found.hits, pictures, model=context.model)
    return hits, [usage]


def by_captions(
    found: Retrieval, state: ImageRAGState, context: Context
) -> tuple[Sequence[Hit], list[Usage]]:
    """Have hits without a caption captioned, a question each, and order all by BM25 of their captions."""
    spent: list[Usage] = []
    for hit in found.hits[:LOOKED_AT]:
        key = "" if hit.caption else context.captions.key(hit.id, context.retriever, context.model)
        so_far = state.model_copy(update={"usage": [*state.usage, *spent]})
        if key and context.captions.get(key) is None and not no_question_left(so_far, context):
            spent.append(write_caption(hit, context))
    told = context.captions.filled(found.hits, context.retriever, context.model)
    scored = zip(found.hits, score_captions(told, found.query), strict=True)
    return [hit for hit, _ in sorted(scored, key=lambda pair: -pair[1])], spent


def no_question_left(state: ImageRAGState, context: Context) -> bool:
    """Tell whether another question would leave none for the look at the result, where rounds ask for one."""
    return bool(budget.limit(state, Usage(mllm_calls=2 if context.imagerag.rounds > 1 else 1)))
