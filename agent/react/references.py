"""Which pictures may show a concept: what was found, less the vetoed ones, and first what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pleinair.agent import ledger
from pleinair.agent.context import Context
from pleinair.agent.react.schemas import Choice
from pleinair.agent.react.state import ReactState
from pleinair.agent.repairs import plan as planning
from pleinair.tools.retrieval.filters import Without
from pleinair.tools.types import BadInput, Hit, Picture, Reference, Repair, Retrieval, Retriever

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.storage.artifacts import ArtifactStore


@dataclass(frozen=True)
class WithGiven:
    """Open the user's own pictures from the store, and all others from the library."""

    retriever: Retriever
    store: ArtifactStore
    given: Mapping[str, Picture]

    def search(self, query: str, k: int) -> list[Hit]:
        """Search the library."""
        return self.retriever.search(query, k)

    def entries(self) -> Sequence[Hit]:
        """List the library's pictures."""
        return self.retriever.entries()

    def open(self, id: str) -> Image:
        """Open a picture by its id."""
        return self.store.open(self.given[id]) if id in self.given else self.retriever.open(id)


def without_vetoed(context: Context, state: ReactState) -> Context:
    """Give a copy of a context for another graph, which knows no vetoes of its own.

    Raises:
        BadInput: the user fixed a picture, which another graph would not keep to.
    """
    names = {one.name for one in state.concepts}
    fixed = [(one.concept, one.hit) for one in state.given] + [(one.concept, one.hit) for one in state.pins]
    kept = [concept for concept, hit in fixed if hit.id not in state.vetoes]
    if held := [concept for concept in kept if concept in names or not names]:
        why = f"The user fixed the picture of {held[0]!r}, and another graph would not keep to it"
        raise BadInput(f"{why}: call `generate`.")
    return _searching(context, Without(context.retriever, state.vetoes)) if state.vetoes else context


def _searching(context: Context, retriever: Retriever) -> Context:
    """Give a copy of a context with another retriever; it may be another class of its form."""
    changed = copy(context)
    object.__setattr__(changed, "retriever", retriever)
    return changed


def with_given(context: Context, given: Sequence[Reference]) -> Context:
    """Give a copy of a context that knows the user's own pictures."""
    pictures = {one.hit.id: one.picture for one in given}
    return _searching(context, WithGiven(context.retriever, context.store, pictures))


def prepared(state: ReactState, repairs: Sequence[Repair], choices: Sequence[Choice]) -> ReactState:
    """Give the state as `select` is to see it: with the repairs, and the look-ups as they may be used.

    Raises:
        BadInput: a repair or choice that cannot be carried out; the text says what can.
    """
    chosen = {one.concept: found_hit(state, one) for one in choices}
    held = [(one.concept, one.hit) for one in _own(state)] + [(one.concept, one.hit) for one in state.pins]
    fixed = {concept: hit for concept, hit in held if hit.id not in state.vetoes}
    found = [_usable(one, state, chosen | fixed) for one in _all_found(state)]
    seen = state.model_copy(update={"retrievals": found, "prompt": state.wish or state.prompt})
    wanted = {one.concept: one for one in repairs}
    wanted |= {
        name: one
        for name, one in forced(state, chosen, fixed).items()
        if name not in wanted or wanted[name].action != "inpaint"  # which brings the chosen picture too
    }
    for repair in wanted.values():
        _check(seen, repair, fixed)
    return seen.model_copy(update={"repairs": list(wanted.values())})


def _own(state: ReactState) -> list[Reference]:
    """List the user's own pictures of which the concept is drawn now."""
    names = {one.name for one in state.concepts}
    return [one for one in state.given if one.concept in names]


def _all_found(state: ReactState) -> list[Retrieval]:
    """List the look-ups, with one that found nothing for a concept that only has a fixed picture."""
    known = {one.concept for one in state.retrievals}
    fixed = {one.concept for one in _own(state)} | {one.concept for one in state.pins}
    bare = [Retrieval(concept=name, query=name, hits=()) for name in sorted(fixed - known)]
    return [*state.retrievals, *bare]


def _usable(found: Retrieval, state: ReactState, chosen: Mapping[str, Hit]) -> Retrieval:
    """Leave of a look-up the chosen hit, or all that are not vetoed."""
    if hit := chosen.get(found.concept):
        return found.model_copy(update={"hits": (hit,), "threshold": None, "abstained": False})
    hits = tuple(hit for hit in found.hits if hit.id not in state.vetoes)
    if found.hits and not hits:
        return found.model_copy(update={"hits": (), "abstained": True, "reason": "all found were vetoed"})
    return found.model_copy(update={"hits": hits})


def found_hit(state: ReactState, choice: Choice) -> Hit:
    """Find a chosen hit among what was looked up for its concept."""
    found = planning.find(choice.concept, state.retrievals)
    hits = [
        *(found.hits if found else ()),
        *(one.hit for one in state.given if one.concept == choice.concept),
    ]
    hit = next((hit for hit in hits if hit.id == choice.id), None)
    if hit is None or hit.id in state.vetoes:
        known = ", ".join(hit.id for hit in hits if hit.id not in state.vetoes)
        raise BadInput(f"No picture {choice.id!r} for {choice.concept!r}; there are: {known or 'none yet'}.")
    return hit


def forced(state: ReactState, chosen: Mapping[str, Hit], fixed: Mapping[str, Hit]) -> dict[str, Repair]:
    """Give the repairs that a choice, a pin or a veto asks for, by concept."""
    best = ledger.best(state.attempts)
    used = {one.concept: one.hit.id for one in best.request.references} if best else {}
    names = {one.name for one in state.concepts}
    pictures = {name: hit for name, hit in {**chosen, **fixed}.items() if name in names}
    forced = {
        name: _bring(name, name in used, "this picture was chosen")
        for name, hit in pictures.items()
        if used.get(name) != hit.id
    }
    vetoed = [name for name, id in used.items() if id in state.vetoes and name not in forced]
    return forced | {name: _bring(name, True, "its picture was vetoed") for name in vetoed}


def _bring(concept: str, again: bool, why: str) -> Repair:
    """Plan a reference for a concept."""
    return Repair(concept=concept, action="swap_reference" if again else "add_reference", why=why)


def _check(state: ReactState, repair: Repair, fixed: Mapping[str, Hit]) -> None:
    """Refuse a repair that would do nothing, or undo what the user wants."""
    names = [one.name for one in state.concepts]
    if repair.concept not in names:
        raise BadInput(
            f"There is no concept {repair.concept!r}; there are: {', '.join(names) or 'none yet'}."
        )
    if repair.action not in planning.BRINGING:
        return
    found = planning.find(repair.concept, state.retrievals)
    if found is None:
        raise BadInput(f"{repair.concept!r} was not looked up: call `retrieve` first.")
    if not found.abstained and not planning.untried(found, state.attempts):
        why = "the user fixed its picture" if repair.concept in fixed else "every picture found was tried"
        raise BadInput(f"There is no other reference for {repair.concept!r}: {why}.")
