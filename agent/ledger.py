"""Reading of ledgers: missing concepts, the best attempt, and whether an image may be accepted."""

from __future__ import annotations

from collections.abc import Sequence

from pleinair.tools.types import Attempt, Concept, Ledger, Row, belief

UNCHECKED = "this graph does not check its image"


def missing(ledger: Ledger) -> list[Row]:
    """Return the rows that are not present: missing ones and unsure ones."""
    return [row for row in ledger.rows if row.status != "present"]


def rows_of(attempt: Attempt | None) -> Sequence[Row]:
    """Return the rows of an attempt, none if it was not judged."""
    return attempt.ledger.rows if attempt and attempt.ledger else ()


def is_complete(ledger: Ledger | None, concepts: Sequence[Concept]) -> bool:
    """Return whether every concept has a row and every row is present."""
    if ledger is None or not concepts or missing(ledger):
        return False
    return {concept.name for concept in concepts} <= {row.concept for row in ledger.rows}


def _order(attempt: Attempt) -> tuple[int, int, int, float, float, int]:
    """Return the sort key: present rows, steps, referenced concepts, belief, less background leaked, earlier.

    A draft may have fewer steps. Where a critic is unsure of a concept, which it may never have seen, an
    image that was generated with a reference of it is the better guess. An attempt without a ledger comes
    after every judged one. How similar a whole image is to its reference does not count: the more of a
    concept came across, the more similar they are.
    """
    if attempt.ledger is None:
        return (-1, 0, 0, 0.0, 0.0, -attempt.number)
    shown = {reference.concept for reference in attempt.request.references}
    referenced = sum(row.status == "unsure" and row.concept in shown for row in attempt.ledger.rows)
    present = len(attempt.ledger.rows) - len(missing(attempt.ledger))
    steps = attempt.request.num_inference_steps
    leaked = max((leak.background or 0.0 for leak in attempt.leaks), default=0.0)
    beliefs = sum(map(belief, attempt.ledger.rows))
    # leaked in tenths, as smaller differences are noise
    return (present, steps, referenced, beliefs, -round(leaked, 1), -attempt.number)


def best(attempts: Sequence[Attempt]) -> Attempt | None:
    """Return the best attempt, the earlier one of equals; None if there is none."""
    return max(attempts, key=_order, default=None)


def latest(attempts: Sequence[Attempt]) -> Attempt | None:
    """Return the attempt with the highest number, None if there is none."""
    return max(attempts, key=lambda attempt: attempt.number, default=None)
