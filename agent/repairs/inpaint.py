"""Inpainting as a repair: when only one box of the best image is generated again.

Only where a single concept is missing, so that everything else is kept: with two or more the whole image is
generated again, and what is missing then may be inpainted. Only the loop and the react graph inpaint.
"""

from __future__ import annotations

from collections.abc import Sequence

from pleinair.agent import ledger
from pleinair.agent.select import (
    REFERENCE_ACTIONS,
    find_retrieval,
    inpainted_concept,
    references_of,
    unused_hits,
)
from pleinair.tools.types import Attempt, BadInput, Box, Capabilities, Inpaint, Reference, Repair, Retrieval

WHY = "everything else is right: only its box is inpainted"
_MIN_SIDE = 1 / 8  # of the image's side; no subject fits into a smaller box
_MAX_AREA = 1 / 2  # of the image's area; around a larger box little is left to keep


def prefer_inpainting(
    repairs: list[Repair],
    best: Attempt,
    attempts: Sequence[Attempt],
    retrievals: Sequence[Retrieval],
    capabilities: Capabilities,
) -> list[Repair]:
    """Return an inpainting in place of a single repair, where possible and not tried with the same reference.

    A generator that takes no references beside the image inpaints only when no reference is left to try.
    """
    for repair in repairs:
        if obstacle(repair.concept, best, capabilities):
            return repairs
        if repair.action in REFERENCE_ACTIONS and not capabilities.inpaint_slots:
            return repairs
        hit_id = _next_hit_id(repair.concept, best, attempts, retrievals, capabilities)
        if repair.action != "add_reference" and hit_id in _inpainted_hit_ids(repair.concept, attempts):
            return repairs
    return [Repair(concept=repair.concept, action="inpaint", why=WHY) for repair in repairs]


def obstacle(concept: str, best: Attempt | None, capabilities: Capabilities) -> str:
    """Return why the concept's box in the best image cannot be inpainted, "" if it can."""
    if not capabilities.inpaint:
        return "this generator does not inpaint"
    if best is None or best.ledger is None:
        return "no image was judged"
    missing = ledger.missing(best.ledger)
    if [row.concept for row in missing] != [concept]:
        return "it must be the only concept that the best image lacks"
    if len(best.ledger.rows) == 1:
        return "there is nothing else to keep"
    if missing[0].box is None:
        return "its critique has no box for it"
    if (best.picture.width, best.picture.height) != (capabilities.width, capabilities.height):
        return "the best image has another size"
    if best.request.num_inference_steps < capabilities.num_inference_steps:
        return "the best image is a draft of fewer steps"
    return box_obstacle(missing[0].box)


def box_obstacle(box: Box) -> str:
    """Return why a box cannot be inpainted whatever it shows, "" if it can."""
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        return "its box is not inside the image"
    if min(x1 - x0, y1 - y0) < _MIN_SIDE:
        return "its box is too small"
    return "its box is nearly the whole image" if (x1 - x0) * (y1 - y0) > _MAX_AREA else ""


def _next_hit_id(
    concept: str,
    best: Attempt,
    attempts: Sequence[Attempt],
    retrievals: Sequence[Retrieval],
    capabilities: Capabilities,
) -> str | None:
    """Return the hit that would be the box's reference: the best unused one, else the current one."""
    if not capabilities.inpaint_slots:
        return None
    retrieval = find_retrieval(concept, retrievals)
    unused = [hit.id for hit in unused_hits(retrieval, attempts)] if retrieval else []
    return next(iter(unused), _hit_id(concept, references_of(best)))


def _inpainted_hit_ids(concept: str, attempts: Sequence[Attempt]) -> set[str | None]:
    """Return the hits with which the concept's box was inpainted before, None for the prompt alone."""
    requests = [attempt.request for attempt in attempts]
    return {
        _hit_id(concept, request.references)
        for request in requests
        if request.inpaint and request.inpaint.concept == concept
    }


def _hit_id(concept: str, references: Sequence[Reference]) -> str | None:
    return next((reference.hit.id for reference in references if reference.concept == concept), None)


def inpaint_of(repairs: Sequence[Repair], best: Attempt | None) -> Inpaint | None:
    """Return the concept, image and box to inpaint; None where the whole image is generated."""
    concept = inpainted_concept(repairs)
    box = next((row.box for row in ledger.rows_of(best) if row.concept == concept), None)
    if concept is None or best is None or box is None:
        return None
    return Inpaint(concept=concept, picture=best.picture, box=box)


def require_possible(repairs: Sequence[Repair], best: Attempt | None, capabilities: Capabilities) -> None:
    """Raise `BadInput` if an inpainting that the driving model asks for is impossible, or not alone."""
    concept = inpainted_concept(repairs)
    if concept is None:
        return
    reason = obstacle(concept, best, capabilities)
    if not reason and len(repairs) > 1:
        reason = "it must be the only repair"
    if reason:
        raise BadInput(f"The box of {concept!r} cannot be inpainted: {reason}.")
