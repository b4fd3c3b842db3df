"""Reading ledgers: what is missing, which attempt is best, when a picture may be accepted."""

from __future__ import annotations

from collections.abc import Sequence

from pleinair.tools.types import Attempt, Concept, Ledger, Row, belief

UNCHECKED = "this graph does not check its image"


def missing(ledger: Ledger) -> list[Row]:
    """List the rows that still need work: missing ones and unsure ones."""
    return [row for row in ledger.rows if row.status != "present"]


def rows_of(attempt: Attempt | None) -> Sequence[Row]:
    """Give an attempt's rows, none where it was not judged."""
    return attempt.ledger.rows if attempt and attempt.ledger else ()


def is_complete(ledger: Ledger | None, concepts: Sequence[Concept]) -> bool:
    """Tell whether every concept has a row and every row says present."""
    if ledger is None or not concepts or missing(ledger):
        return False
    return {concept.name for concept in concepts} <= {row.concept for row in ledger.rows}


def _order(attempt: Attempt) -> tuple[int, int, float, float, int]:
    """Sort key, greatest is best: more present rows, drawn in more steps, belief in the rows, earlier.

    Before "earlier" comes what leaked from references: less is better. An attempt without a ledger comes
    after every judged one.
    """
    if attempt.ledger is None:
        return (-1, 0, 0.0, 0.0, -attempt.number)
    present = len(attempt.ledger.rows) - len(missing(attempt.ledger))
    steps = attempt.request.num_inference_steps  # fewer only in a draft
    return (present, steps, sum(map(belief, attempt.ledger.rows)), -_leaked(attempt), -attempt.number)


def _leaked(attempt: Attempt) -> float:
    """Give the most that came across of any reference's background or whole, in tenths: less is noise."""
    return round(max((max(one.background or 0.0, one.copied) for one in attempt.leaks), default=0.0), 1)


def best(attempts: Sequence[Attempt]) -> Attempt | None:
    """Choose the best attempt so far, None if there is none: a later one must earn its place."""
    return max(attempts, key=_order, default=None)


def latest(attempts: Sequence[Attempt]) -> Attempt | None:
    """Give the attempt with the highest number."""
    return max(attempts, key=lambda attempt: attempt.number, default=None)
