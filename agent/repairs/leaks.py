"""What came across from references besides their concepts: measured, told, used where nothing else decides.

A leak never costs an attempt and never makes a picture unacceptable. Where one is drawn anyway, a reference
that leaked gives way to another; and of two pictures with equal ledgers the one with less of it is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from pleinair.agent.repairs.plan import find, untried
from pleinair.tools.images.crops import cut, own_names, union, within
from pleinair.tools.types import Attempt, Leak, Reference, Repair, Retrieval, Value

if TYPE_CHECKING:
    from pleinair.tools.images.leak import View
    from pleinair.tools.storage.artifacts import ArtifactStore

MOST = 3  # pictures without a reference that are looked at


class LeakOptions(Value):
    """Say whether references are compared with what was drawn, and from where on it is too much.

    The defaults are measured: `python -m pleinair.evals.experiments.leak`.
    """

    check: bool = True
    background: float = Field(default=0.8, ge=0, le=1)
    copied: float = Field(default=0.98, ge=0, le=1)
    pose: float = Field(default=0.3, ge=0, le=1)  # told, and never a reason to repair: it may be asked for


def compared(
    drawn: Attempt, attempts: Sequence[Attempt], store: ArtifactStore, options: LeakOptions
) -> Attempt:
    """Give a judged attempt with the leaks of its references; the others say what was there without each."""
    if not options.check or not drawn.request.references:
        return drawn
    leaks = [_leak_of(one, drawn, attempts, store) for one in drawn.request.references]
    return drawn.model_copy(update={"leaks": tuple(leaks)})


def _leak_of(reference: Reference, drawn: Attempt, attempts: Sequence[Attempt], store: ArtifactStore) -> Leak:
    """Measure what of one reference came across."""
    from pleinair.tools.images import leak

    without = [one.picture for one in attempts if not _uses(one, reference) and one.number != drawn.number]
    new, sent = _drawn_view(reference, drawn, store), _sent_view(reference, store)
    before = [leak.shrunk(store.open(picture)) for picture in without[-MOST:]]
    return Leak(
        concept=reference.concept,
        id=reference.hit.id,
        background=leak.background(new, sent, before),
        copied=leak.copied(new.image, sent.image),
        pose=leak.pose(new, sent),
    )


def _uses(attempt: Attempt, reference: Reference) -> bool:
    """Tell whether an attempt was drawn from the same picture."""
    return any(one.picture.sha256 == reference.picture.sha256 for one in attempt.request.references)


def _drawn_view(reference: Reference, drawn: Attempt, store: ArtifactStore) -> View:
    """Open a drawn picture, with what its ledger says of places; a box that is none is not known."""
    from pleinair.tools.images.leak import View, is_box, shrunk

    rows = drawn.ledger.rows if drawn.ledger else ()
    boxes = {row.concept: row.box for row in rows if row.box and is_box(row.box)}
    own = boxes.pop(reference.concept, None)
    return View(shrunk(store.open(drawn.picture)), own, tuple(boxes.values()))


def _sent_view(reference: Reference, store: ArtifactStore) -> View:
    """Open a reference as it was sent, with what its library says of places."""
    from pleinair.tools.images.leak import View, shrunk

    boxes, crop = reference.hit.boxes, reference.crop
    own = [boxes[name] for name in own_names(reference.concept, boxes)]
    inside = [within(box, crop) for box in boxes.values()]
    others = tuple(box for box in inside if box)
    return View(
        shrunk(cut(store.open(reference.picture), crop)), within(union(own), crop) if own else None, others
    )


def swaps(
    good: Attempt,
    repairs: Sequence[Repair],
    retrievals: Sequence[Retrieval],
    attempts: Sequence[Attempt],
    options: LeakOptions,
) -> list[Repair]:
    """Plan another reference beside the repairs, for each that leaked and has an untried one to give way to.

    Nothing is added where nothing else is repaired, or where only a box is painted anew.
    """
    if not repairs or any(one.action == "inpaint" for one in repairs):
        return []
    busy = {one.concept for one in repairs}
    bad = [one for one in good.leaks if one.concept not in busy and excess(one, options)]
    found = [(one, find(one.concept, retrievals)) for one in bad]
    return [
        Repair(concept=one.concept, action="swap_reference", why=f"its {excess(one, options)} came across")
        for one, known in found
        if known and untried(known, attempts)
    ]


def excess(leak: Leak, options: LeakOptions) -> str:
    """Name what came across too much to be kept, "" if nothing did."""
    if leak.copied >= options.copied:
        return "whole picture"
    return "background" if (leak.background or 0.0) >= options.background else ""
