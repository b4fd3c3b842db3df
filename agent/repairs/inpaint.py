"""When one box of the best picture is painted anew, rather than the whole picture.

Only where a single row is not present, so that all the others are what is kept: with two or more the whole
picture is drawn again, and what is then left may be painted in. Other graphs than the loop and the driven one
never do it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pleinair.agent import ledger
from pleinair.agent.repairs.plan import BRINGING, find, untried
from pleinair.tools.types import (
    Attempt,
    BadInput,
    Box,
    Capabilities,
    Hit,
    Inpaint,
    Repair,
    Retrieval,
)

WHY = "all else is right: only its place is painted anew"
LEAST = 1 / 8  # of the picture's side; in a smaller box no subject can be drawn
MOST = 1 / 2  # of the picture's area; around a larger box little is left to keep


def instead(
    repairs: list[Repair],
    good: Attempt,
    attempts: Sequence[Attempt],
    retrievals: Sequence[Retrieval],
    able: Capabilities,
) -> list[Repair]:
    """Paint one box anew where that keeps all that is right, and was not tried with the same reference.

    A class that takes no references beside the picture does so only when none is left to try.
    """
    for one in repairs:
        if obstacle(one.concept, good, able) or (one.action in BRINGING and not able.inpaint_slots):
            return repairs
        found = find(one.concept, retrievals)
        if one.action != "add_reference" and _brought(found, one, good, attempts, able) in _tried(
            one, attempts
        ):
            return repairs
    return [Repair(concept=one.concept, action="inpaint", why=WHY) for one in repairs]


def obstacle(concept: str, good: Attempt | None, able: Capabilities) -> str:
    """Say why the concept's box in the best picture cannot be painted anew, "" if it can."""
    if not able.inpaint:
        return "this generator paints no box anew"
    if good is None or good.ledger is None:
        return "no picture was judged"
    lacking = [row for row in ledger.missing(good.ledger) if row.concept == concept]
    if len(lacking) != 1 or len(ledger.missing(good.ledger)) > 1:
        return "it must be the only concept that the best picture lacks"
    if len(good.ledger.rows) == 1:
        return "there is nothing else to keep"
    if lacking[0].box is None:
        return "nobody said where it would be"
    if (good.picture.width, good.picture.height) != (able.width, able.height):
        return "the best picture has another size"
    if good.request.num_inference_steps < able.num_inference_steps:
        return "the best picture is a sketch"
    return misshapen(lacking[0].box)


def misshapen(box: Box) -> str:
    """Say what is wrong with a box for painting, "" if nothing is."""
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        return "its box is not inside the picture"
    if min(x1 - x0, y1 - y0) < LEAST:
        return "its box is too small"
    return "its box is nearly the whole picture" if (x1 - x0) * (y1 - y0) > MOST else ""


def _brought(
    found: Retrieval | None,
    repair: Repair,
    good: Attempt,
    attempts: Sequence[Attempt],
    able: Capabilities,
) -> str | None:
    """Name the hit that would be shown for the box: the best untried one, or the concept's old one."""
    if not able.inpaint_slots:
        return None
    fresh = untried(found, attempts) if found else []
    old = [one.hit.id for one in good.request.references if one.concept == repair.concept]
    return next(iter([*fresh, *old]), None)


def _tried(repair: Repair, attempts: Sequence[Attempt]) -> set[str | None]:
    """List the hits with which the concept's box was painted before, None for words alone."""
    done = [one.request for one in attempts if one.request.inpaint]
    own = [one for one in done if one.inpaint and one.inpaint.concept == repair.concept]
    return {
        next((one.hit.id for one in sent.references if one.concept == repair.concept), None) for sent in own
    }


def painted(repairs: Sequence[Repair]) -> str | None:
    """Name the concept whose box is painted anew, None where the whole picture is drawn."""
    return next((one.concept for one in repairs if one.action == "inpaint"), None)


def replaced(repairs: Sequence[Repair], fresh: Mapping[str, Sequence[Hit]], able: Capabilities) -> set[str]:
    """Name the concepts whose references change.

    For a box the old one stays where no other is left, unless the class takes none beside the picture.
    """
    swapped = {one.concept for one in repairs if one.action in BRINGING}
    concept = painted(repairs)
    if concept and (fresh.get(concept) or not able.inpaint_slots):
        swapped.add(concept)
    return swapped


def repaint(repairs: Sequence[Repair], good: Attempt | None) -> Inpaint | None:
    """Fix what is painted in; None where the whole picture is drawn."""
    concept = painted(repairs)
    rows = good.ledger.rows if good and good.ledger else ()
    box = next((row.box for row in rows if row.concept == concept), None)
    if concept is None or good is None or box is None:
        return None
    return Inpaint(concept=concept, picture=good.picture, box=box)


def require(repairs: Sequence[Repair], good: Attempt | None, able: Capabilities) -> None:
    """Refuse a driving model's wish to paint a box that cannot be painted, or beside other repairs."""
    concept = painted(repairs)
    if concept is None:
        return
    why = obstacle(concept, good, able)
    if not why and len(repairs) > 1:
        why = "it must be the only repair"
    if why:
        raise BadInput(f"The box of {concept!r} cannot be painted anew: {why}.")
