"""What an ImageRAG run remembers, and what follows from it: references, room, rounds (appendix D)."""

from __future__ import annotations

from itertools import zip_longest
from typing import Literal

from pydantic import Field

from pleinair.agent import budget, ledger
from pleinair.agent import select as selection
from pleinair.agent import select as slots
from pleinair.agent.context import Context
from pleinair.agent.repairs import plan as planning
from pleinair.agent.select import Pick
from pleinair.agent.state import Input, State
from pleinair.tools.mllm.schemas import Decision
from pleinair.tools.types import Attempt, Hit, Limit, Picture, Reference, Retrieval, Usage


class ImageRAGInput(Input):
    """What a caller gives besides: pictures of its own, already in the store, which take slots.

    They stay with a thread until others, or none, are given.
    """

    pictures: list[Picture] = Field(default_factory=list)


class ImageRAGState(ImageRAGInput, State):
    """The working state with the conversation's answers; what a later round answers replaces them."""

    decision: Decision | None = None
    missing: list[str] = Field(default_factory=list)


def given(state: ImageRAGState) -> tuple[Reference, ...]:
    """Make the user's own pictures references; they come first."""
    return tuple(
        Reference(
            concept=f"own picture {number}",
            hit=Hit(id=picture.sha256, score=1.0, source="given with the prompt"),
            picture=picture,
        )
        for number, picture in enumerate(state.pictures, 1)
    )


def kept(state: ImageRAGState) -> tuple[Reference, ...]:
    """Give the newest picture's library references whose concepts are no longer missing."""
    newest: Attempt | None = ledger.latest(state.attempts)
    gone = {one.name for one in state.concepts} | {one.concept for one in given(state)}
    return tuple(one for one in newest.request.references if one.concept not in gone) if newest else ()


def is_new(state: ImageRAGState, found: Retrieval) -> bool:
    """Tell whether a look-up is of this round's concepts and served no picture yet."""
    wanted = found.concept in {one.name for one in state.concepts}
    return wanted and not planning.tried(found.concept, state.attempts)


def pick(state: ImageRAGState, context: Context) -> list[Pick]:
    """Choose the pictures: every concept's first, then every concept's second, until the room is used."""
    found = slots.usable(state, {one.name for one in state.concepts})
    ordered = [
        [Pick(one.name, hit) for hit in found.get(one.name, [])[: context.imagerag.captions]]
        for one in state.concepts
    ]
    ranked = [one for rank in zip_longest(*ordered) for one in rank if one]
    return ranked[: room(state, context)]


def in_order(references: tuple[Reference, ...], prompt: str) -> tuple[Reference, ...]:
    """Order references as the prompt names their concepts; those it does not name come last, as they were."""
    text = prompt.casefold()
    found = {one.concept: text.find(one.concept.casefold()) for one in references}
    return selection.in_order(
        references, sorted((name for name in found if found[name] >= 0), key=found.__getitem__)
    )


def captions(state: ImageRAGState, references: tuple[Reference, ...]) -> list[str]:
    """Give each reference the caption it was looked up by; a concept's first speaks for all of its own."""
    queries = {found.concept: found.query.splitlines()[0] for found in state.retrievals}
    return [queries[one.concept] for one in references]


def room(state: ImageRAGState, context: Context) -> int:
    """Count the references that fit beside the user's pictures; one at most under the "image" template."""
    free = context.generator.capabilities.slots - len(state.pictures)
    return min(free, 1) if context.imagerag.template == "image" else free


def rounds_left(state: ImageRAGState, context: Context) -> int:
    """Count the passes that may still be drawn."""
    drafts = int(context.imagerag.mode == "draft_first")
    return context.imagerag.rounds + drafts - len(state.attempts)


def tries(state: ImageRAGState, context: Context) -> int:
    """Limit the concept call's repetitions to what the budget of questions leaves besides the captions."""
    most, asked = state.budget.mllm_calls, context.imagerag.tries
    spent = budget.total(state.usage).mllm_calls
    return asked if most is None else min(asked, most - spent - _questions(context) + 1)


def _questions(context: Context) -> int:
    """Count the questions of one pass, with the look at its result where the rounds ask for one."""
    options = context.imagerag
    asked = 1 if options.rephrase_only else {"captions": 2, "concepts": 1, "prompt": 0}[options.retrieve_by]
    return asked + (options.rounds > 1)


def obstacle(state: ImageRAGState, context: Context) -> Limit | Literal["slots"] | None:
    """Return what forbids another pass, a limit or the want of a free slot; None if nothing does."""
    if not state.decision and (state.attempts or context.imagerag.mode == "draft_first"):
        return budget.limit(state, budget.QUESTION if state.attempts else budget.PICTURE) or "seconds"
    if room(state, context) < 1 and not context.imagerag.rephrase_only:
        return "slots"
    return budget.limit(state, Usage(images=1, mllm_calls=_questions(context)))
