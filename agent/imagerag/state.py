"""State of the ImageRAG graph, and what follows from it: references, free slots, rounds (appendix D)."""

from __future__ import annotations

from itertools import zip_longest
from typing import Literal

from pydantic import Field

from pleinair.agent import budget, ledger
from pleinair.agent.context import Context
from pleinair.agent.select import Pick, references_of, unused_candidates, used_ids
from pleinair.agent.state import Input, State
from pleinair.tools.mllm.schemas import Decision
from pleinair.tools.types import Hit, Limit, Picture, Reference, Retrieval, Usage


class ImageRAGInput(Input):
    """Input of the ImageRAG graph."""

    # input images, already in the store; they take slots, and stay with a thread until replaced
    pictures: list[Picture] = Field(default_factory=list)


class ImageRAGState(ImageRAGInput, State):
    """Working state of the ImageRAG graph; a later round replaces the answers of an earlier one."""

    decision: Decision | None = None  # whether the newest image matches the prompt
    missing: list[str] = Field(default_factory=list)  # concepts to retrieve references for


def input_references(state: ImageRAGState) -> tuple[Reference, ...]:
    """Return the input images as references; they come first."""
    return tuple(
        Reference(
            concept=f"own picture {number}",
            hit=Hit(id=picture.sha256, score=1.0, source="given with the prompt"),
            picture=picture,
        )
        for number, picture in enumerate(state.pictures, 1)
    )


def retained_references(state: ImageRAGState) -> tuple[Reference, ...]:
    """Return the newest image's library references whose concepts are no longer missing."""
    concepts = {concept.name for concept in state.concepts}
    concepts |= {reference.concept for reference in input_references(state)}
    references = references_of(ledger.latest(state.attempts))
    return tuple(reference for reference in references if reference.concept not in concepts)


def is_new(state: ImageRAGState, retrieval: Retrieval) -> bool:
    """Return whether a retrieval is for a concept of this round and served no image yet."""
    concepts = {concept.name for concept in state.concepts}
    return retrieval.concept in concepts and not used_ids(retrieval.concept, state.attempts)


def pick_by_rank(state: ImageRAGState, context: Context) -> list[Pick]:
    """Pick every concept's first unused hit, then every concept's second, until the free slots are used."""
    candidates = unused_candidates(state, {concept.name for concept in state.concepts})
    picks = [
        [Pick(concept.name, hit) for hit in candidates.get(concept.name, [])[: context.imagerag.captions]]
        for concept in state.concepts
    ]
    ranked = [pick for rank in zip_longest(*picks) for pick in rank if pick]
    return ranked[: free_slots(state, context)]


def captions(state: ImageRAGState, references: tuple[Reference, ...]) -> list[str]:
    """Return the caption that each reference was retrieved by, the first one of its concept."""
    queries = {retrieval.concept: retrieval.query.splitlines()[0] for retrieval in state.retrievals}
    return [queries[reference.concept] for reference in references]


def free_slots(state: ImageRAGState, context: Context) -> int:
    """Return the references that fit beside the input images; at most one with the template "image"."""
    slots = context.generator.capabilities.slots - len(state.pictures)
    return min(slots, 1) if context.imagerag.template == "image" else slots


def rounds_left(state: ImageRAGState, context: Context) -> int:
    """Return how many rounds may still be generated."""
    drafts = int(context.imagerag.mode == "draft_first")
    return context.imagerag.rounds + drafts - len(state.attempts)


def concept_tries(state: ImageRAGState, context: Context) -> int:
    """Return the tries of the concept call that the budget leaves besides the captions."""
    limit, tries = state.budget.mllm_calls, context.imagerag.tries
    spent = budget.total(state.usage).mllm_calls
    return tries if limit is None else min(tries, limit - spent - _calls_per_round(context) + 1)


def _calls_per_round(context: Context) -> int:
    """Return the MLLM calls of one round, with the decision on its result where rounds have one."""
    options = context.imagerag
    calls = 1 if options.rephrase_only else {"captions": 2, "concepts": 1, "prompt": 0}[options.retrieve_by]
    return calls + (options.rounds > 1)


def obstacle(state: ImageRAGState, context: Context) -> Limit | Literal["slots"] | None:
    """Return what forbids another round, a limit or the lack of a free slot; None if nothing does."""
    if not state.decision and (state.attempts or context.imagerag.mode == "draft_first"):
        return budget.limit(state, budget.MLLM_CALL if state.attempts else budget.IMAGE) or "seconds"
    if free_slots(state, context) < 1 and not context.imagerag.rephrase_only:
        return "slots"
    return budget.limit(state, Usage(images=1, mllm_calls=_calls_per_round(context)))
