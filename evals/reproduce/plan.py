"""What the tables of a paper take: their rows as overrides of settings, their prompts, and each row's share.

A row of a table is a `Line`; what it generates on one data set is an `Arm`, which several tables may share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pleinair.evals.reproduce.published import Figure, Paper, Published, published
from pleinair.tools.data_sets.data_set import Example
from pleinair.tools.registry import did_you_mean
from pleinair.tools.types import BadInput


class Pool(NamedTuple):
    """Images that references are retrieved from."""

    kind: Literal["", "domain", "generic"]  # "": none
    size: int = 0  # images of a generic one, 0 for all

    def __str__(self) -> str:
        return f"{self.kind}:{self.size}" if self.size else self.kind


NO_POOL, DOMAIN, GENERIC = Pool(""), Pool("domain"), Pool("generic")


@dataclass(frozen=True, slots=True)
class Variant:
    """Way of generating: a graph, and what it changes in the profile's settings."""

    name: str
    graph: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # dotted keys
    trained: str = ""  # loss of RealRAG's training that comes first; "": none


@dataclass(frozen=True, slots=True)
class Subject:
    """Prompt with the real images that its image is compared with."""

    prompt: str
    group: str  # class, species or artist: a cluster of the intervals
    seed: int
    truth: tuple[Path, ...]
    left_out: str = ""  # id of an image of the pool that is hidden from this prompt, "" for none


@dataclass(frozen=True, slots=True)
class Queries:
    """Prompts of a data set, and the images of its own that may be references."""

    subjects: tuple[Subject, ...]
    pool: tuple[Example, ...]
    how: str  # what was chosen, for the report


class Arm(NamedTuple):
    """What is generated in one way on one data set."""

    data_set: str
    variant: str
    pool: Pool = NO_POOL

    def __str__(self) -> str:
        return "/".join(filter(None, map(str, self)))


@dataclass(frozen=True, slots=True)
class Line:
    """Row of a table that is made anew."""

    title: str
    variant: Variant
    pool: Pool = NO_POOL
    published: Mapping[str, str] = field(
        default_factory=dict
    )  # the row's name in print, by the paper's generator

    def printed_row(self, generator: str) -> str:
        """Return the paper's row for one of its generators, or for all of them; "" for none."""
        return self.published.get(generator, self.published.get("", ""))

    def arm(self, column: str) -> Arm:
        """Return what a column needs, which begins with its data set."""
        return Arm(column.partition(" ")[0], self.variant.name, self.pool)


@dataclass(frozen=True, slots=True)
class Sheet:
    """Table that is made anew; its columns are each a data set and a measure."""

    id: str
    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def numbers(self) -> list[str]:
        """Return the numbers of the paper's table, of which one may have several: 6 and 7."""
        return self.printed.number.split(" and ") if self.printed else [self.id.partition("/")[2]]

    @property
    def name(self) -> str:
        """Return what the paper calls it: "Tables 6 and 7", "Appendix E.5" or "Figure 16"."""
        text = " and ".join(self.numbers)
        if self.printed is None:
            return f"Figure {text.removeprefix('F')}"
        return f"{'Table' if text[0].isdigit() else 'Appendix'}{'s' if len(self.numbers) > 1 else ''} {text}"

    @property
    def is_generated(self) -> bool:
        """Return whether the figures are of generated images, and not of another model's answers."""
        return any(line.variant.graph for line in self.lines)

    @property
    def printed(self) -> Published | None:
        """Return the paper's table; None for what the paper has as a plot only."""
        return published().get(self.id)

    def figure(self, line: Line, column: str, generator: str) -> Figure | None:
        """Return the paper's figure of a cell for one of its generators; None where it has none."""
        row = line.printed_row(generator)
        return self.printed.figure(row, column) if self.printed and row else None

    def arms(self) -> dict[Arm, Line]:
        """Return what the table needs, in its order."""
        return {line.arm(column): line for line in self.lines for column in self.columns}


def sheet(id: str, lines: Sequence[Line]) -> Sheet:
    """Return a table with the title and the columns of the paper's."""
    table = published()[id]
    return Sheet(id, table.title, table.columns, tuple(lines))


def choose(sheets: Sequence[Sheet], only: Sequence[str], paper: Paper) -> list[Sheet]:
    """Return the tables and rows of a list: numbers ("2"), rows ("captions"), or both ("2:captions").

    Raises:
        BadInput: there is no such table or row.
    """
    if not only:
        return list(sheets)
    wanted = [_wanted(text, sheets, paper) for text in only]
    chosen = []
    for each in sheets:
        rows = {row for table, row in wanted if table in ("", *each.numbers)}
        lines = tuple(line for line in each.lines if "" in rows or line.variant.name in rows)
        if lines:
            chosen.append(replace(each, lines=lines))
    return chosen


def order(number: str) -> tuple[bool, int, str]:
    """Return what puts the numbers of tables into their order, with appendices and figures at the end."""
    return not number.isdigit(), int(number) if number.isdigit() else 0, number


def _wanted(text: str, sheets: Sequence[Sheet], paper: Paper) -> tuple[str, str]:
    """Return a table's number and a row's name, "" for any."""
    table, _, row = text.strip().removeprefix(f"{paper}/").partition(":")
    numbers = sorted({number for each in sheets for number in each.numbers}, key=order)
    rows = list(dict.fromkeys(line.variant.name for each in sheets for line in each.lines))
    if table in rows and not row:
        return "", table
    if table not in numbers or row not in ("", *rows):
        accepted = (
            f"tables {', '.join(numbers)}; rows {', '.join(rows)}; or both, such as {numbers[0]}:{rows[0]}"
        )
        hint = did_you_mean(row or table, [*numbers, *rows])
        raise BadInput(f"--only {text!r}: unknown; accepted: {accepted}.{hint}")
    return table, row


def arms_of(sheets: Sequence[Sheet]) -> dict[Arm, Line]:
    """Return what all tables need, each once: plain models first, since others share their drafts."""
    every = {arm: line for each in sheets for arm, line in each.arms().items()}
    return dict(sorted(every.items(), key=lambda pair: (pair[0].data_set, pair[1].variant.graph != "direct")))


def numbered(
    subjects: Iterator[tuple[str, str, tuple[Path, ...]]], images: int, seed: int
) -> Iterator[Subject]:
    """Yield each prompt `images` times with seeds of its own, which depend on nothing but its place."""
    for place, (prompt, group, truth) in enumerate(subjects):
        for number in range(images):
            yield Subject(prompt, group, seed + 1000 * place + number, truth)
