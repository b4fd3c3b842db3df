"""Plan of the next attempt: the cheapest repair for each concept that the best image does not show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pleinair.agent import ledger
from pleinair.agent.repairs import inpaint
from pleinair.agent.repairs.leaks import LeakOptions, excess
from pleinair.agent.select import find_retrieval, unused_hits
from pleinair.tools.types import Attempt, Capabilities, Repair, Retrieval, Row


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
    repairs = inpaint.prefer_inpainting(repairs, best, attempts, retrievals, capabilities)
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
