"""Strip of an attribution: the image drawn again without some of its references, side by side.

The HTML storyboard, the page of a run and the PNG show the same cells.
"""

from __future__ import annotations

from dataclasses import dataclass

from pleinair.app.trace.attribution import MARGIN, Attribution, Subset
from pleinair.tools.types import Picture, Reference, Status

HEADING = "What each reference contributed"
NOTE = (
    "Drawn again with the same seed, prompt and settings; per cent are the critic's belief that the image "
    "shows a concept, beside its change. One seed is one sample."
)


@dataclass(frozen=True)
class Change:
    """Belief in one concept in a redrawn image."""

    concept: str
    status: Status
    belief: float  # 0 to 1
    change: float  # to the accepted image
    lost: bool  # the change is over the margin


@dataclass(frozen=True)
class Cell:
    """One image of the strip."""

    title: str
    picture: Picture
    references: tuple[tuple[int, Reference], ...]  # that it has or, of several, lacks: its subject
    changes: tuple[Change, ...]
    difference: float | None = None  # of its pixels to the accepted image's, 0 to 1; None: it is that image
    lead: str = ""  # before the name of each of its references
    carried: tuple[str, ...] = ()  # concepts that the left-out reference carries


def cells_of(attribution: Attribution) -> list[Cell]:
    """Return the accepted image and the redrawn ones, in the order of the strip."""
    everything = tuple(range(len(attribution.references)))
    first = Cell(
        title=attribution.title(everything),
        picture=attribution.picture,
        references=tuple(enumerate(attribution.references)),
        changes=_changes(attribution, everything),
    )
    return [first, *(_redrawn(attribution, number) for number in range(len(attribution.redrawn)))]


def _redrawn(attribution: Attribution, number: int) -> Cell:
    redrawn, count = attribution.redrawn[number], len(attribution.references)
    left_out = [each for each in range(count) if each not in redrawn.references]
    subject = left_out if len(left_out) == 1 else list(redrawn.references)
    return Cell(
        title=attribution.title(redrawn.references),
        picture=redrawn.picture,
        references=tuple((each, attribution.references[each]) for each in subject),
        changes=_changes(attribution, redrawn.references),
        difference=redrawn.difference,
        lead="left out: " if len(left_out) == 1 else "",
        carried=tuple(
            concept
            for concept in attribution.concepts
            if len(left_out) == 1 and attribution.carrier(concept) == left_out[0]
        ),
    )


def _changes(attribution: Attribution, references: Subset) -> tuple[Change, ...]:
    everything = tuple(range(len(attribution.references)))
    rows = attribution.rows_of(references)
    changes = []
    for row in rows:
        before, after = (attribution.belief(row.concept, each) for each in (everything, references))
        if before is not None and after is not None:
            lost = before - after > MARGIN
            changes.append(Change(row.concept, row.status, after, after - before, lost))
    return tuple(changes)
