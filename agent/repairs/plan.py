"""Plan of the next attempt: the cheapest repair for each concept that the best image does not show.

One box of the best image is inpainted only where a single concept is missing, so that everything else is
kept: with two or more the whole image is generated again, and what is missing then may be inpainted. Only the
loop and the react graph inpaint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pleinair.agent import ledger
from pleinair.agent.repairs.leaks import LeakOptions, excess
from pleinair.agent.select import (
    REFERENCE_ACTIONS,
    find_retrieval,
    inpainted_concept,
    references_of,
    unused_hits,
)
from pleinair.tools.types import (
    Attempt,
    BadInput,
    Box,
    Capabilities,
    Inpaint,
    Reference,
    Repair,
    Retrieval,
    Row,
)

WHY_INPAINT = "everything else is right: only its box is inpainted"
_MIN_SIDE = 1 / 8  # of the image's side; no subject fits into a smaller box
_MAX_AREA = 1 / 2  # of the image's area; around a larger box little is left to keep


def plan_repairs(
    best: Attempt,
    attempts: Sequence[Attempt],
    retrievals: Sequence[Retrieval],
    capabilities: Capabilities,
    leaks: LeakOptions,
) -> list[Repair]:
    """Return the repairs of the next attempt; empty where the best image shows every concept.

    Each concept that is not present gets the cheapest repair that was not tried: a reference if there was
    none; another one while there are unused hits; then the critic's advice in the prompt, where references
    cannot help; else a new seed. A single missing concept is inpainted instead where that is possible. Where
    the whole image is generated again anyway, references that leaked are swapped too.
    """
    rows = ledger.missing(best.ledger) if best.ledger else []
    repairs = [_repair(row, attempts, find_retrieval(row.concept, retrievals), capabilities) for row in rows]
    repairs = prefer_inpainting(repairs, best, attempts, retrievals, capabilities)
    return [*repairs, *_swap_leaked(best, repairs, attempts, retrievals, leaks)]


def _repair(
    row: Row, attempts: Sequence[Attempt], retrieval: Retrieval | None, capabilities: Capabilities
) -> Repair:
    if not capabilities.slots or (retrieval and retrieval.abstained):
        return _reword(row, retrieval)
    if retrieval is None:
        return Repair(concept=row.concept, action="add_reference", why="no reference was tried yet")
    if unused_hits(retrieval, attempts):
        return Repair(concept=row.concept, action="swap_reference", why="the reference tried did not help")
    return Repair(concept=row.concept, action="new_seed", why="every retrieved reference was tried")


def _reword(row: Row, retrieval: Retrieval | None) -> Repair:
    """Return a repair by the critic's advice, or by another seed where there is none."""
    why = retrieval.reason if retrieval else "the generator takes no references"
    return Repair(concept=row.concept, action="reword" if row.advice else "new_seed", why=why)


def _swap_leaked(
    best: Attempt,
    repairs: Sequence[Repair],
    attempts: Sequence[Attempt],
    retrievals: Sequence[Retrieval],
    options: LeakOptions,
) -> list[Repair]:
    """Return a swap for each reference of a concept not under repair that leaked and has an unused hit."""
    if not repairs or any(repair.action == "inpaint" for repair in repairs):
        return []
    repaired = {repair.concept for repair in repairs}
    swaps = []
    for leak in best.leaks:
        retrieval = find_retrieval(leak.concept, retrievals)
        leaked = "" if leak.concept in repaired else excess(leak, options)
        if leaked and retrieval and unused_hits(retrieval, attempts):
            why = f"its {leaked} leaked into the image"
            swaps.append(Repair(concept=leak.concept, action="swap_reference", why=why))
    return swaps


def revise_repairs(
    repairs: Iterable[Repair], rows: Iterable[Row], retrievals: Sequence[Retrieval]
) -> list[Repair]:
    """Return the repairs with the ones whose retrieval abstained replaced by advice or a new seed.

    An inpainting is kept: it changes nothing else, and may succeed without a reference.
    """
    rows_by_concept = {row.concept: row for row in rows}

    def revise(repair: Repair) -> Repair:
        row, retrieval = rows_by_concept.get(repair.concept), find_retrieval(repair.concept, retrievals)
        abstained = retrieval is not None and retrieval.abstained
        return _reword(row, retrieval) if row and abstained and repair.action != "inpaint" else repair

    return [revise(repair) for repair in repairs]


def prompt_with_advice(prompt: str, repairs: Iterable[Repair], rows: Iterable[Row]) -> str:
    """Return the prompt followed by the critic's advice for each concept that is repaired by rewording."""
    concepts = {repair.concept for repair in repairs if repair.action == "reword"}
    return " ".join([prompt, *(row.advice for row in rows if row.concept in concepts)])


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
    return [Repair(concept=repair.concept, action="inpaint", why=WHY_INPAINT) for repair in repairs]


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
