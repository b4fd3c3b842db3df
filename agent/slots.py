"""Which references a request shows: those that stay, and the best untried hits in the slots that are free."""

from __future__ import annotations

from pleinair.agent import inpaint
from pleinair.agent import plan as planning
from pleinair.agent import select as selection
from pleinair.agent.context import Context
from pleinair.agent.state import State
from pleinair.tools.crops import choose_crop
from pleinair.tools.types import Attempt, Hit, Reference, Repair


def choose_references(
    state: State, context: Context, good: Attempt | None, repairs: list[Repair]
) -> tuple[Reference, ...]:
    """Keep the references that brought their concept in, and give each concept under repair a new one.

    A new one is the concept's best untried hit; the old one stays where the repair is another seed. Where
    only a box is painted anew, the references of what is kept take no slot: they are not shown, and stay in
    the request as what the picture came from.
    """
    able, painted = context.generator.capabilities, inpaint.painted(repairs)
    fresh = usable(state, {one.concept for one in repairs if one.action in (*planning.BRINGING, "inpaint")})
    swapped = inpaint.replaced(repairs, fresh, able)
    kept = tuple(one for one in references_of(good) if one.concept not in swapped)
    kept = kept if painted else kept[: able.slots]
    free = able.inpaint_slots if painted else max(able.slots - len(kept), 0)
    picks = selection.once(selection.select(fresh, free))
    new = tuple(make_reference(pick, context) for pick in picks)
    return selection.in_order(kept + new, [one.name for one in state.concepts])


def references_of(attempt: Attempt | None) -> tuple[Reference, ...]:
    """Give what an attempt was drawn from."""
    return attempt.request.references if attempt else ()


def usable(state: State, concepts: set[str]) -> dict[str, list[Hit]]:
    """Give each concept under repair its hits that are above the floor and untried."""
    found = [one for one in state.retrievals if one.concept in concepts]
    fresh = {one.concept: set(planning.untried(one, state.attempts)) for one in found}
    return {one.concept: [hit for hit in one.hits if hit.id in fresh[one.concept]] for one in found}


def make_reference(pick: selection.Pick, context: Context) -> Reference:
    """Copy a found picture into the store, so that the run keeps it, and choose its crop."""
    picture = context.store.put(context.retriever.open(pick.hit.id))
    size, concepts = (picture.width, picture.height), (pick.concept, *pick.others)
    crop = choose_crop(concepts, pick.hit.boxes, size, context.crops)
    return Reference(concept=pick.concept, hit=pick.hit, picture=picture, crop=crop)
