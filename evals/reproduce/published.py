"""Tables of the three papers as printed: `evals/data/published.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Literal

Paper = Literal["imagerag", "crossmodal", "realrag"]
FILE = "data/published.toml"


@dataclass(frozen=True, slots=True)
class Figure:
    """Printed value with its ± (a standard error), if there is one."""

    value: float
    error: float | None = None
    text: str = field(default="", compare=False)  # as printed

    def __str__(self) -> str:
        return self.text.replace("±", " ± ")


@dataclass(frozen=True, slots=True)
class Published:
    """One table of a paper; a column is a data set and a measure, such as "cub DINO"."""

    paper: Paper
    number: str
    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Figure | None, ...]]
    notes: tuple[str, ...] = ()
    not_targets: tuple[str, ...] = ()  # rows that contradict another table of the paper

    @property
    def id(self) -> str:
        """Return the name by which `--only` chooses the table, such as "imagerag/2"."""
        return f"{self.paper}/{self.number.partition(' ')[0]}"

    def figure(self, row: str, column: str) -> Figure | None:
        """Return a cell; None if it is empty or the paper has no such row or column."""
        if row not in self.rows or column not in self.columns:
            return None
        return self.rows[row][self.columns.index(column)]


@cache
def published() -> Mapping[str, Published]:
    """Return every table by its id."""
    text = files("pleinair.evals").joinpath(FILE).read_text("utf-8")
    tables = [_table(entry) for entry in tomllib.loads(text)["table"]]
    return {table.id: table for table in tables}


def _table(entry: dict[str, object]) -> Published:
    fields = dict(entry)
    rows: object = fields.pop("rows")
    assert isinstance(rows, dict)
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    cells = {name: tuple(map(_figure, text.split())) for name, text in rows.items()}
    return Published(**{**fields, **lists, "rows": cells})  # type: ignore[arg-type]


def _figure(text: str) -> Figure | None:
    if text == "-":
        return None
    value, _, error = text.partition("±")
    return Figure(float(value), float(error) if error else None, text)
