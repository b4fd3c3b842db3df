"""The cheapest repair for each row that is not present."""

from __future__ import annotations

from collections.abc import Sequence

from pleinair.tools.types import Attempt, Repair, Retrieval, Row

BRINGING = ("add_reference", "swap_reference")  # the repairs that show the generator another picture


def plan(
    rows: Sequence[Row], attempts: Sequence[Attempt], retrievals: Sequence[Retrieval], slots: int
) -> list[Repair]:
    """Give each row one repair, from what was tried for its concept before.

    The ladder: a reference if none was tried; another one while the look-up has untried hits; then
    words, where the critic has advice and references cannot help; else the same with a new seed.
    """
    return [_repair(row, attempts, find(row.concept, retrievals), slots) for row in rows]


def _repair(row: Row, attempts: Sequence[Attempt], retrieval: Retrieval | None, slots: int) -> Repair:
    """Choose the repair of one row; `slots` is how many references the generator takes."""
    if slots and retrieval is None:
        return Repair(concept=row.concept, action="add_reference", why="no reference was tried yet")
    if slots and retrieval and untried(retrieval, attempts):
        return Repair(
            concept=row.concept, action="swap_reference", why="the reference tried did not bring it"
        )
    if not slots or (retrieval and retrieval.abstained):
        return _reword(row, retrieval)
    return Repair(concept=row.concept, action="new_seed", why="every reference found was tried")


def _reword(row: Row, retrieval: Retrieval | None) -> Repair:
    """Fall back on words, or on luck where the critic gave none."""
    why = retrieval.reason if retrieval else "the generator takes no references"
    return Repair(concept=row.concept, action="reword" if row.advice else "new_seed", why=why)


def after_retrieval(
    repairs: Sequence[Repair], rows: Sequence[Row], retrievals: Sequence[Retrieval]
) -> list[Repair]:
    """Replace the repairs whose look-up abstained by words, so that no attempt is spent on nothing.

    A box is painted anew all the same: what is right is kept, and words may do.
    """
    by_name = {row.concept: row for row in rows}

    def revised(one: Repair) -> Repair:
        found = find(one.concept, retrievals)
        if one.action != "inpaint" and one.concept in by_name and found and found.abstained:
            return _reword(by_name[one.concept], found)
        return one

    return [revised(one) for one in repairs]


def reworded(prompt: str, repairs: Sequence[Repair], rows: Sequence[Row]) -> str:
    """Add the critic's advice to the prompt for the concepts whose repair is words."""
    names = {one.concept for one in repairs if one.action == "reword"}
    return " ".join([prompt, *(row.advice for row in rows if row.concept in names)])


def find(concept: str, retrievals: Sequence[Retrieval]) -> Retrieval | None:
    """Find the look-up made for a concept."""
    return next((one for one in retrievals if one.concept == concept), None)


def tried(concept: str, attempts: Sequence[Attempt]) -> set[str]:
    """List the ids of the hits that served a concept in any attempt."""
    used = (reference for attempt in attempts for reference in attempt.request.references)
    return {reference.hit.id for reference in used if reference.concept == concept}


def untried(retrieval: Retrieval, attempts: Sequence[Attempt]) -> list[str]:
    """List the hits above the threshold that no attempt has used for the concept, best first."""
    if retrieval.abstained:
        return []
    used = tried(retrieval.concept, attempts)
    threshold = retrieval.threshold if retrieval.threshold is not None else -1.0
    return [hit.id for hit in retrieval.hits if hit.id not in used and hit.score >= threshold]
