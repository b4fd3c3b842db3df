"""Plan of a batch: its rows as requests, all validated before anything is written, and what they take."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pleinair.app import api
from pleinair.app.batch.rows import Row
from pleinair.app.batch.source import BadRows, Fault
from pleinair.app.estimate.cost import Range
from pleinair.app.estimate.estimate import Estimate, estimate_of
from pleinair.app.paths import Paths
from pleinair.app.runs.prices import is_hosted, is_paid
from pleinair.app.runs.request import OUT, DrawRequest
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Runs
from pleinair.app.texts import counted
from pleinair.tools.types import BadInput, Value

SEEDS = 2**32  # of rows without one
_RANGES = {
    "pictures": "images",
    "calls": "MLLM calls",
    "tokens": "tokens",
    "seconds": "seconds",
    "usd": "US dollars",
}


@dataclass(frozen=True)
class Item:
    """Row of a batch that has been validated."""

    row: Row
    out: Path
    num_images: int  # of the row, or of its prompt
    seed: int  # of the row, of its prompt, or derived
    kind: str  # requests of one kind differ in prompt, negative prompt and seed only

    @property
    def idempotency_key(self) -> str:
        """Key of the row's runs: the same row in the same folder has the same runs."""
        return "batch-" + hashlib.sha256(f"{self.out}\n{self.row.key}".encode()).hexdigest()

    def submit(self, runs: Runs) -> list[Run]:
        """Return the runs of the row, one an image, written now unless they have been before."""
        options: dict[str, Any] = self.row.options | {
            "num_images": self.num_images,
            "seed": self.seed,
            "overrides": self.row.overrides,
            "out": str(self.out),
            "name": self.row.id,
            "idempotency_key": self.idempotency_key,
        }
        return runs.keyed(self.idempotency_key) or api.submit_images(self.row.prompt, **options)


@dataclass(frozen=True)
class Plan:
    """Rows in the order in which they are executed, and a request of each kind."""

    items: list[Item]
    requests: dict[str, DrawRequest]


def plan_of(
    name: str,
    rows: Sequence[Row],
    out: Path,
    seed: int = 0,
    on_row: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Validate rows; rows of the same generator follow each other, else they keep their order.

    Args:
        name: of the file, for messages.
        rows: to be validated.
        out: absolute folder for the results.
        seed: from which rows without a seed derive theirs.
        on_row: receives the number of validated rows and of all.

    Raises:
        BadRows: with the fault of every row that has one; nothing was written.
        BadInput: `out` cannot be written to.
    """
    items: list[Item] = []
    faults: list[Fault] = []
    requests: dict[str, DrawRequest] = {}
    for number, row in enumerate(rows):
        on_row(number, len(rows))
        try:
            request = _request(row, out)
        except BadInput as error:
            if error.field == OUT:  # no row's own
                raise
            faults.append(Fault(row.line, error.message, error.remedy))
            continue
        kind = _kind(request)
        requests.setdefault(kind, request)
        row_seed = _derived(seed, row) if request.seed is None else request.seed
        items.append(Item(row, out, request.num_images, row_seed, kind))
    if faults:
        raise BadRows(name, faults)
    generators: dict[str, int] = {}  # by their settings: which comes first
    order = {
        kind: generators.setdefault(request.settings.generator.model_dump_json(), len(generators))
        for kind, request in requests.items()
    }
    return Plan(sorted(items, key=lambda item: order[item.kind]), requests)


def _request(row: Row, out: Path) -> DrawRequest:
    options: dict[str, Any] = {"num_images": None, **row.options}  # None: the number in the prompt
    return api.validate(row.prompt, **options, overrides=row.overrides, out=str(out), yes=True)


def _derived(seed: int, row: Row) -> int:
    """Return a seed for a row without one; it depends on no option, so that options can be compared."""
    digest = hashlib.sha256(f"{seed}\n{row.number}\n{row.id}\n{row.prompt}".encode()).digest()
    return int.from_bytes(digest[:8]) % SEEDS


def _kind(request: DrawRequest) -> str:
    image = request.settings.image.model_copy(update={"negative_prompt": None})
    settings = request.settings.model_copy(update={"image": image})
    return hashlib.sha256((request.graph + settings.model_dump_json()).encode()).hexdigest()


class BatchEstimate(Value):
    """Estimate of the rows that are left; each range has the least and the most."""

    rows: int  # of the file
    left: int  # rows that have no outcome yet
    runs: int  # of those, one an image
    kinds: tuple[str, ...]  # graph, profile, generator and MLLM of each
    is_paid: bool  # whether a generator or an MLLM costs money for each call
    pictures: Range
    calls: Range  # of the MLLM
    tokens: Range
    seconds: Range  # of work
    usd: Range

    def lines(self) -> Iterator[str]:
        """Yield the lines for a terminal."""
        left = "all" if self.left == self.rows else f"{self.left} left"
        yield f"{counted(self.rows, 'row')}, {left}: {counted(self.runs, 'run')}, one an image"
        yield from self.kinds
        for name, label in _RANGES.items():
            yield getattr(self, name).line(label)
        yield "The first number is for drafts that are accepted at once, the second for the whole budgets."


def estimate(plan: Plan, left: Sequence[Item], places: Paths) -> BatchEstimate:
    """Estimate what the rows that are left take, each kind by one request of it; writes nothing."""
    counts: Counter[str] = Counter()
    for item in left:
        counts[item.kind] += item.num_images
    requests = [plan.requests[kind] for kind in counts]
    parts = [
        estimate_of(request.model_copy(update={"num_images": count}), places)
        for request, count in zip(requests, counts.values(), strict=True)
    ]
    kinds = (f"{part.graph}, profile {part.profile}: {part.generator}, {part.mllm}" for part in parts)
    return BatchEstimate(
        rows=len(plan.items),
        left=len(left),
        runs=counts.total(),
        kinds=tuple(dict.fromkeys(kinds)),
        is_paid=any(map(_is_paid, requests, parts)),
        **{name: _total([getattr(part, name) for part in parts]) for name in _RANGES},
    )


def _is_paid(request: DrawRequest, part: Estimate) -> bool:
    return is_paid(request.settings.generator) or (is_hosted(request.settings.mllm) and part.calls.high != 0)


def _total(ranges: Sequence[Range]) -> Range:
    """Return the sum of ranges; a bound that one of them lacks is unknown."""
    lows, highs = [part.low for part in ranges], [part.high for part in ranges]
    return Range(
        low=None if None in lows else round(sum(filter(None, lows)), 6),
        high=None if None in highs else round(sum(filter(None, highs)), 6),
        note="; ".join(dict.fromkeys(part.note for part in ranges if part.note)),
    )
