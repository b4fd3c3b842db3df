"""What the user and the driving model decide about references: input images, pins, vetoes and choices.

They restrict what `pleinair.agent.select` may pick from, and add the repairs that they call for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pleinair.agent import ledger
from pleinair.agent.approval.nodes import renamed, stopped_by_person, with_names
from pleinair.agent.approval.types import Approval
from pleinair.agent.context import Context
from pleinair.agent.react.schemas import Choice, Pin
from pleinair.agent.react.state import ReactState
from pleinair.agent.select import (
    REFERENCE_ACTIONS,
    Unavailable,
    find_retrieval,
    open_hit,
    references_of,
    restrict_retrievals,
    unused_hits,
)
from pleinair.agent.state import changed
from pleinair.tools.retrieval.filters import Filtered, without
from pleinair.tools.types import BadInput, Hit, Repair, Retrieval, concept_key


def without_vetoed(context: Context, state: ReactState) -> Context:
    """Return a copy of the context for another graph, which knows neither vetoes nor pins.

    Raises:
        BadInput: a concept has a pin or an input image, which another graph would not use.
    """
    for concept, hit in _user_hits(state):
        if hit.id not in state.vetoes and (concept in state.concept_names or not state.concepts):
            reason = "and another graph would not use it: call `generate`"
            raise BadInput(f"The user fixed the picture of {concept!r}, {reason}.")
    if not state.vetoes:
        return context
    keep = without(state.vetoes)
    papers = context.paper_retriever and Filtered(context.paper_retriever, keep)
    return context.with_retrievers(Filtered(context.retriever, keep), papers)


def _user_hits(state: ReactState) -> list[tuple[str, Hit]]:
    """Return every concept with an input image or a pin, and its hit; of several the last one counts."""
    names = {concept_key(name): name for name in state.concept_names}
    inputs = [(names.get(concept_key(each.concept), each.concept), each.hit) for each in state.given]
    return inputs + [(pin.concept, pin.hit) for pin in state.pins]


def without_unavailable(
    state: ReactState, choices: Sequence[Choice], context: Context
) -> tuple[ReactState, list[Choice]]:
    """Return the state and the choices without the chosen and pinned images that cannot be read any more.

    Their hits are marked, so that the next ones take their place.
    """
    pinned = [(pin.concept, pin.hit) for pin in state.pins]
    chosen = [(choice.concept, retrieved_hit(state, choice)) for choice in choices]
    lost: dict[tuple[str, str], str] = {}
    for concept, hit in (*pinned, *chosen):
        try:
            open_hit(hit, context)
        except Unavailable as error:
            lost[concept, hit.id] = error.why
    retrievals = []
    for retrieval in state.retrievals:
        for (concept, id), why in lost.items():
            retrieval = retrieval.without(id, why) if concept == retrieval.concept else retrieval
        retrievals.append(retrieval)
    pins = [pin for pin in state.pins if (pin.concept, pin.hit.id) not in lost]
    remaining = [choice for choice in choices if (choice.concept, choice.id) not in lost]
    return state.model_copy(update={"retrievals": retrievals, "pins": pins}), remaining


def apply_choices(state: ReactState, repairs: Sequence[Repair], choices: Sequence[Choice]) -> ReactState:
    """Return the state for `select`: with the repairs, and retrievals restricted by choices, pins and vetoes.

    A pin or an input image outranks the model's choice.

    Raises:
        BadInput: a repair or choice that cannot be carried out; the message says what can.
    """
    user_hits = {concept: hit for concept, hit in _user_hits(state) if concept in state.concept_names}
    retrieved = {retrieval.concept for retrieval in state.retrievals}
    names = sorted(user_hits.keys() - retrieved)
    unretrieved = [Retrieval(concept=name, query=name, hits=()) for name in names]
    user_hits = {concept: hit for concept, hit in user_hits.items() if hit.id not in state.vetoes}
    hits = {choice.concept: retrieved_hit(state, choice) for choice in choices} | user_hits
    retrievals = restrict_retrievals([*state.retrievals, *unretrieved], hits, state.vetoes)
    state = state.model_copy(update={"retrievals": retrievals, "prompt": state.wish or state.prompt})
    planned = {repair.concept: repair for repair in repairs}
    for repair in _required_repairs(state, hits):
        inpaints = repair.concept in planned and planned[repair.concept].action == "inpaint"
        if not inpaints:  # an inpainting shows the chosen image too
            planned[repair.concept] = repair
    for repair in planned.values():
        _check(repair, state, user_hits)
    return state.model_copy(update={"repairs": list(planned.values())})


def apply_approval(state: ReactState, approval: Approval) -> tuple[ReactState, dict[str, Any]]:
    """Return the state as a person's answer changes it, and the update that records the change."""
    hits = {
        concept: retrieved_hit(state, Choice(concept=concept, id=id)) for concept, id in approval.hits.items()
    }
    given = {concept_key(reference.concept): reference for reference in (*state.given, *approval.given)}
    pins = {
        pin.concept: pin
        for pin in state.pins
        if pin.hit.id not in approval.vetoes and concept_key(pin.concept) not in given
    }
    pins |= {concept: Pin(concept=concept, hit=hit) for concept, hit in hits.items()}
    fields: dict[str, Any] = {
        "approvals": [*state.approvals, approval],
        "vetoes": sorted({*state.vetoes, *approval.vetoes}),
        "pins": list(pins.values()),
        "given": list(given.values()),
        "concepts": [renamed(concept, approval.concepts) for concept in state.concepts],
    }
    if approval.concepts:
        fields["attempts"] = [with_names(attempt, approval.concepts) for attempt in state.attempts]
    if approval.prompt:
        fields["wish"] = approval.prompt
    update = changed(**fields)
    if approval.stop:
        update |= changed(outcome=stopped_by_person(state))
    return state.model_copy(update=fields), update


def retrieved_hit(state: ReactState, choice: Choice) -> Hit:
    """Return the chosen hit among those that were retrieved, or given as input, for its concept."""
    retrieval = find_retrieval(choice.concept, state.retrievals)
    key = concept_key(choice.concept)
    inputs = (reference.hit for reference in state.given if concept_key(reference.concept) == key)
    hits = [*(retrieval.hits if retrieval else ()), *inputs]
    lost = retrieval.unavailable if retrieval else {}
    hits = [hit for hit in hits if hit.id not in state.vetoes and hit.id not in lost]
    hit = next((hit for hit in hits if hit.id == choice.id), None)
    if hit is None:
        ids = ", ".join(hit.id for hit in hits) or "none yet"
        raise BadInput(f"No picture {choice.id!r} for {choice.concept!r}; there are: {ids}.")
    return hit


def _required_repairs(state: ReactState, hits: Mapping[str, Hit]) -> list[Repair]:
    """Return the repairs that put the chosen hits into the next image and the vetoed ones out of it."""
    best = references_of(ledger.best(state.attempts))
    used = {reference.concept: reference.hit.id for reference in best}
    repairs = {
        name: Repair(
            concept=name,
            action="swap_reference" if name in used else "add_reference",
            why="this picture was chosen",
        )
        for name, hit in hits.items()
        if name in state.concept_names and used.get(name) != hit.id
    }
    vetoed = [name for name, id in used.items() if id in state.vetoes and name not in repairs]
    why = "its picture was vetoed"
    return [*repairs.values(), *(Repair(concept=name, action="swap_reference", why=why) for name in vetoed)]


def _check(repair: Repair, state: ReactState, user_hits: Collection[str]) -> None:
    """Raise `BadInput` for a repair that would change nothing, or undo what the user fixed."""
    if repair.concept not in state.concept_names:
        names = ", ".join(state.concept_names) or "none yet"
        raise BadInput(f"There is no concept {repair.concept!r}; there are: {names}.")
    if repair.action not in REFERENCE_ACTIONS:
        return
    retrieval = find_retrieval(repair.concept, state.retrievals)
    if retrieval is None:
        raise BadInput(f"{repair.concept!r} was not looked up: call `retrieve` first.")
    if not retrieval.abstained and not unused_hits(retrieval, state.attempts):
        why = "the user fixed its picture" if repair.concept in user_hits else "every picture found was tried"
        raise BadInput(f"There is no other reference for {repair.concept!r}: {why}.")
