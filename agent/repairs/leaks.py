"""Leaks: what an image took over from its references besides their concepts.

A leak never costs an attempt and never makes an image unacceptable. Where another attempt is made anyway, a
reference that leaked is swapped (`repairs/plan.py`); of two images with equal ledgers the one that leaked
less is better (`ledger.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from pleinair.tools.images.crops import cut, is_box, own_names, union, within
from pleinair.tools.types import Attempt, Leak, Reference, Value

if TYPE_CHECKING:
    from pleinair.tools.images.leak import View
    from pleinair.tools.storage.artifacts import ArtifactStore

_MAX_COMPARED = 3  # images without the reference that one with it is compared with


class LeakOptions(Value):
    """Whether references are compared with the generated image, and from which measure on they leaked.

    The defaults are measured: `python -m pleinair.evals.experiments.leak`.
    """

    check: bool = True  # measure leaks of references
    background: float = Field(default=0.8, ge=0, le=1)  # share of its background from which it leaked
    copied: float = Field(default=0.98, ge=0, le=1)  # similarity from which the image is a copy of it
    pose: float = Field(default=0.3, ge=0, le=1)  # similarity of outlines; reported only


def with_leaks(
    attempt: Attempt, attempts: Sequence[Attempt], store: ArtifactStore, options: LeakOptions
) -> Attempt:
    """Return a judged attempt with the leaks of its references, measured against the other attempts."""
    if not options.check:
        return attempt
    leaks = [_leak_of(reference, attempt, attempts, store) for reference in attempt.request.references]
    return attempt.model_copy(update={"leaks": tuple(leaks)})


def _leak_of(
    reference: Reference, attempt: Attempt, attempts: Sequence[Attempt], store: ArtifactStore
) -> Leak:
    from pleinair.tools.images import leak

    without = [
        other.picture for other in attempts if not _uses(other, reference) and other.number != attempt.number
    ]
    generated, sent = _generated_view(reference, attempt, store), _sent_view(reference, store)
    before = [leak.shrunk(store.open(picture)) for picture in without[-_MAX_COMPARED:]]
    return Leak(
        concept=reference.concept,
        id=reference.hit.id,
        background=leak.background(generated, sent, before),
        copied=leak.copied(generated.image, sent.image),
        pose=leak.pose(generated, sent),
    )


def _uses(attempt: Attempt, reference: Reference) -> bool:
    pictures = (other.picture for other in attempt.request.references)
    return any(picture.sha256 == reference.picture.sha256 for picture in pictures)


def _generated_view(reference: Reference, attempt: Attempt, store: ArtifactStore) -> View:
    """Open a generated image with the boxes of its ledger; impossible boxes are left out."""
    from pleinair.tools.images.leak import View, shrunk

    rows = attempt.ledger.rows if attempt.ledger else ()
    boxes = {row.concept: row.box for row in rows if row.box and is_box(row.box)}
    box = boxes.pop(reference.concept, None)
    return View(shrunk(store.open(attempt.picture)), box, tuple(boxes.values()))


def _sent_view(reference: Reference, store: ArtifactStore) -> View:
    """Open a reference as it was sent, with the boxes of its library."""
    from pleinair.tools.images.leak import View, shrunk

    boxes, crop = reference.hit.boxes, reference.crop
    concept_boxes = [boxes[name] for name in own_names(reference.concept, boxes)]
    others = tuple(box for box in (within(box, crop) for box in boxes.values()) if box)
    box = within(union(concept_boxes), crop) if concept_boxes else None
    return View(shrunk(cut(store.open(reference.picture), crop)), box, others)


def excess(leak: Leak, options: LeakOptions) -> str:
    """Return what leaked too much for the reference to be kept, "" if nothing did."""
    if leak.copied >= options.copied:
        return "whole picture"
    return "background" if (leak.background or 0.0) >= options.background else ""
