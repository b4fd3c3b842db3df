"""State of the Cross-modal RAG graph: the sub-queries, and which image serves which of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from langgraph.channels import EphemeralValue
from pydantic import Field

from pleinair.agent.select import Pick, cover, unused_candidates
from pleinair.agent.state import Input, Output, State
from pleinair.tools.retrieval.crossmodal.joint import Joint
from pleinair.tools.types import Hit, Retrieval

NO_CAPTION = "no caption contains it"


class CrossmodalInput(Input):
    """Input of the Cross-modal RAG graph."""

    # the caller's sub-queries for this request, used as they are instead of the model's
    subqueries: Annotated[list[str], EphemeralValue] = Field(default_factory=list)


class CrossmodalOutput(Output):
    """Output of the Cross-modal RAG graph."""

    joint: Joint | None = None  # the joint retrieval, with the sub-queries of each image


class CrossmodalState(CrossmodalInput, CrossmodalOutput, State):
    """Working state of the Cross-modal RAG graph; the concepts are the sub-queries, in the prompt's order."""


def names(state: CrossmodalState) -> list[str]:
    """Return the sub-queries in the prompt's order."""
    return [concept.name for concept in state.concepts]


def uncovered(state: CrossmodalState) -> tuple[str, ...]:
    """Return the sub-queries that no caption contains."""
    return state.joint.uncovered if state.joint else ()


def retrievals_of(joint: Joint, subqueries: Sequence[str]) -> list[Retrieval]:
    """Split a joint retrieval into one retrieval per sub-query, each image with its cosine to it."""
    return [_retrieval(joint, name, column) for column, name in enumerate(subqueries)]


def _retrieval(joint: Joint, name: str, column: int) -> Retrieval:
    hits = [
        member.hit.model_copy(update={"score": member.cosines[column] if member.cosines else 0.0})
        for member in joint.members
        if name in member.satisfied
    ]
    reason = "" if hits else NO_CAPTION
    ranked = sorted(hits, key=lambda hit: (-hit.score, hit.id))
    return Retrieval(concept=name, query=name, hits=tuple(ranked), abstained=not hits, reason=reason)


def pick_jointly(state: CrossmodalState, slots: int) -> list[Pick]:
    """Pick at most `slots` images, each with the sub-queries that it serves, in the prompt's order.

    All of the Pareto set if it fits, with one image for each sub-query that was retrieved by its looks. Else
    a greedy cover: the image that serves the most sub-queries not served yet, by the higher cosines on a
    tie, until all are served or the slots are full (ours; the paper has no limit).
    """
    candidates = _candidates(state)
    hits = {hit.id: hit for ranked in candidates.values() for hit in ranked}
    if len(hits) > slots:
        covering = {pick.hit.id for pick in cover(candidates, slots)}
        hits = {id: hit for id, hit in hits.items() if id in covering}
    ids = {name: {hit.id for hit in ranked} for name, ranked in candidates.items()}
    rank = {name: number for number, name in enumerate(candidates)}
    picks = []
    for id, hit in hits.items():
        first, *others = [name for name in candidates if id in ids[name]]
        picks.append(Pick(first, hit, tuple(others)))
    return sorted(picks, key=lambda pick: [rank[name] for name in (pick.concept, *pick.others)])


def _candidates(state: CrossmodalState) -> dict[str, list[Hit]]:
    """Return the hits of each sub-query: those of the Pareto set, or the best one retrieved by its looks."""
    hits, by_looks = unused_candidates(state, names(state)), uncovered(state)
    ranked = {name: hits[name][:1] if name in by_looks else hits[name] for name in names(state)}
    return {name: hits for name, hits in ranked.items() if hits}


def report(state: CrossmodalState) -> str:
    """Return the sub-queries that no caption contains, what was done, and any warning about the method."""
    if state.joint is None:
        return ""
    results = {
        retrieval.concept: "nothing found" if retrieval.abstained else "looked up instead"
        for retrieval in state.retrievals
    }
    missing = ", ".join(f"{name!r} ({results[name]})" for name in state.joint.uncovered)
    lines = (f"no caption contains {missing}" if missing else "", state.joint.warning)
    return "; ".join(filter(None, lines))
