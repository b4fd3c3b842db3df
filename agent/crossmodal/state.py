"""What a Cross-modal RAG run remembers: the sub-queries, and which picture serves which of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from langgraph.channels import EphemeralValue
from pydantic import Field

from pleinair.agent import select as selection
from pleinair.agent import select as slots
from pleinair.agent.state import Input, Output, State
from pleinair.tools.retrieval.crossmodal.joint import Joint
from pleinair.tools.types import Hit, Retrieval

NO_CAPTION = "no caption contains it"


class CrossmodalInput(Input):
    """What a caller gives besides: sub-queries of its own for this request, which are taken as they are."""

    subqueries: Annotated[list[str], EphemeralValue] = Field(default_factory=list)  # until they are concepts


class CrossmodalOutput(Output):
    """What a caller gets besides: the joint retrieval, with each picture's sub-queries."""

    joint: Joint | None = None


class CrossmodalState(CrossmodalInput, CrossmodalOutput, State):
    """The working state; the concepts are the sub-queries, in the prompt's order."""


def names(state: CrossmodalState) -> list[str]:
    """List the sub-queries in the prompt's order."""
    return [one.name for one in state.concepts]


def look_ups(joint: Joint, subqueries: Sequence[str]) -> list[Retrieval]:
    """Turn a joint retrieval into one look-up a sub-query, each picture with its own cosine to it."""
    return [_look_up(joint, name, column) for column, name in enumerate(subqueries)]


def _look_up(joint: Joint, name: str, column: int) -> Retrieval:
    """List the pictures that serve one sub-query, the highest cosine first."""
    hits = [
        one.hit.model_copy(update={"score": one.cosines[column] if one.cosines else 0.0})
        for one in joint.members
        if name in one.satisfied
    ]
    reason = "" if hits else NO_CAPTION
    ranked = sorted(hits, key=lambda hit: (-hit.score, hit.id))
    return Retrieval(concept=name, query=name, hits=tuple(ranked), abstained=not hits, reason=reason)


def chosen(state: CrossmodalState, slots: int) -> dict[str, tuple[Hit, list[str]]]:
    """Choose at most `slots` pictures; give each with the sub-queries it serves, in the prompt's order.

    All of the Pareto set where it fits, with one picture for each sub-query that was looked up by looks. Else
    a greedy cover: the picture that serves the most sub-queries not served yet, by the higher cosines on a
    tie, until all are served or the slots are full (ours; the paper has no limit).
    """
    found = _candidates(state)
    hits = {hit.id: hit for one in found.values() for hit in one}
    if len(hits) > slots:
        kept = {pick.hit.id for pick in selection.cover(found, slots)}
        hits = {id: hit for id, hit in hits.items() if id in kept}
    served = {id: [name for name in found if id in [hit.id for hit in found[name]]] for id in hits}
    place = {name: number for number, name in enumerate(found)}
    order = sorted(hits, key=lambda id: [place[name] for name in served[id]])
    return {id: (hits[id], served[id]) for id in order}


def _candidates(state: CrossmodalState) -> dict[str, list[Hit]]:
    """Give each sub-query its pictures: those of the Pareto set, or the best one found by its looks."""
    found = slots.usable(state, set(names(state)))
    by_looks = state.joint.uncovered if state.joint else ()
    ranked = {name: found[name][:1] if name in by_looks else found[name] for name in names(state)}
    return {name: hits for name, hits in ranked.items() if hits}


def report(state: CrossmodalState) -> str:
    """Say which sub-queries no caption contains and what was done, and any doubt about the method."""
    if state.joint is None:
        return ""
    looked = {
        one.concept: "nothing found" if one.abstained else "looked up instead" for one in state.retrievals
    }
    missed = [f"{name!r} ({looked[name]})" for name in state.joint.uncovered]
    said = f"no caption contains {', '.join(missed)}" if missed else ""
    return "; ".join(one for one in (said, state.joint.warning) if one)


def uncovered(state: CrossmodalState) -> tuple[str, ...]:
    """List the sub-queries that no caption contains."""
    return state.joint.uncovered if state.joint else ()
