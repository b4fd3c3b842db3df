"""Measure how prompts and changes are read: `python -m pleinair.evals.pocket.language FILE…`.

A file has JSON lines: prompts that the catalogue world can draw, with what they mean; prompts that it
cannot, with the word that is not of the world (`cause`) and the names of the world that are nearest; or
changes in a chat (`change`) of a `prompt`, with a prompt that says what is meant then (`meant`), null if the
change must be refused. Not covered: whether a refusal's sentence is good.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pleinair.evals.metrics import wilson_interval
from pleinair.tools.pocket.catalogue.language.arrangement import CONVERSE
from pleinair.tools.pocket.catalogue.language.changes.change import change
from pleinair.tools.pocket.catalogue.language.prompts import Mention, Request
from pleinair.tools.pocket.catalogue.language.reading import complete, read
from pleinair.tools.pocket.catalogue.language.refusals import NotUnderstood

Row = dict[str, Any]
_DATA = Path(__file__).parents[1] / "data"
PROMPTS, CHANGES = (tuple(sorted((_DATA / folder).glob("*.jsonl"))) for folder in ("prompts", "changes"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a prompt was read; `is_right` means as meant, or refused if it cannot be drawn."""

    text: str  # the prompt or the change
    is_right: bool
    answer: str  # what was read, or the refusal
    offers_nearest: bool = False  # the refusal has a nearest name of the table


def judge(row: Row) -> Outcome:
    """Read a row's prompt, or its change, and compare the request with what the row says."""
    before = read(row["prompt"]).request if "change" in row else None
    text: str = row["prompt"] if before is None else row["change"]
    try:
        request = read(text).request if before is None else change(text, before).request
    except NotUnderstood as refusal:
        nearest = bool(set(refusal.nearest) & set(row.get("nearest", ())))
        return Outcome(text, not _is_inside(row), f"{refusal.kind}: {refusal}", nearest)
    return Outcome(text, _is_inside(row) and same_request(request, meant(row)), str(request))


def _is_inside(row: Row) -> bool:
    return bool(row.get("meant", row.get("subjects")))


def meant(row: Row) -> Request:
    """Return the request that a row states, in fields or as a prompt."""
    if "meant" in row:
        return read(row["meant"]).request
    mentions = tuple(Mention(**subject) for subject in row["subjects"])
    relations = (row["relation"], "beside")[: len(mentions) - 1]
    return Request(mentions, relations, row["background"], row["light"], row["weather"])


def same_request(first: Request, second: Request) -> bool:
    """Return whether requests mean the same.

    The first two subjects may be in the other order if the relation is turned too.
    """
    first, second = complete(first), complete(second)
    settings = [(request.background, request.light, request.weather) for request in (first, second)]
    if settings[0] != settings[1] or Counter(first.mentions) != Counter(second.mentions):
        return False
    if {*first.relations, *second.relations} <= {"beside"}:
        return True
    return first.mentions[2:] == second.mentions[2:] and _relate_alike(first, second)


def _relate_alike(first: Request, second: Request) -> bool:
    """Return whether the first two subjects stand alike; "beside" leaves their order open."""
    relation, other = (next(iter(request.relations), "beside") for request in (first, second))
    if first.mentions[:2] == second.mentions[:2] and relation == other:
        return True
    is_turned = first.mentions[:2] == second.mentions[1::-1]
    return is_turned and other in (
        CONVERSE[relation],
        *[key for key in CONVERSE if CONVERSE[key] == relation],
    )


def _report(path: Path, rows: Sequence[Row], show: bool) -> None:
    outcomes = [judge(row) for row in rows]
    for is_inside, meaning in ((True, "read as meant"), (False, "refused")):
        of_sort = [
            outcome for row, outcome in zip(rows, outcomes, strict=True) if _is_inside(row) == is_inside
        ]
        if of_sort:
            _print_share(f"{path.name}: {meaning}", [outcome.is_right for outcome in of_sort])
    with_nearest = [
        outcome.offers_nearest for row, outcome in zip(rows, outcomes, strict=True) if row.get("nearest")
    ]
    if with_nearest:
        _print_share(f"{path.name}: refused with a nearest name", with_nearest)
    if show:
        for row, outcome in zip(rows, outcomes, strict=True):
            if not outcome.is_right or (row.get("nearest") and not outcome.offers_nearest):
                print(f"  {outcome.text}\n    {outcome.answer}")


def _print_share(label: str, hits: Sequence[bool]) -> None:
    count, n = sum(hits), len(hits)
    low, high = wilson_interval(count, n)
    print(f"{label}: {count} of {n}, {count / n:.1%} (95 % Wilson {low:.1%} to {high:.1%})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the shares of some files, by default of all that are shipped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=PROMPTS + CHANGES)
    parser.add_argument("--show", action="store_true", help="print the rows that failed")
    options = parser.parse_args(arguments)
    for path in options.files:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        _report(path, rows, options.show)


if __name__ == "__main__":
    main()
