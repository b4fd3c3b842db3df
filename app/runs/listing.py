"""Search in the run table, a page at a time; an index has all that is searched."""

from __future__ import annotations

from typing import Any, NamedTuple

from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Runs
from pleinair.tools.types import Value


class RunFilter(Value):
    """Which runs are listed; what is empty restricts nothing."""

    search: str = ""  # words that all are in the prompt or the id
    status: str = ""
    graph: str = ""
    profile: str = ""
    since: float | None = None  # seconds since the epoch, when a run was requested
    until: float | None = None

    def where(self) -> tuple[str, list[Any]]:
        """Return an SQL condition and its values."""
        fields = {"status": self.status, "graph": self.graph, "profile": self.profile}
        parts: list[tuple[str, Any]] = [(f"{name} = ?", value) for name, value in fields.items() if value]
        parts += [("instr(words || ' ' || id, ?) > 0", word) for word in self.search.casefold().split()]
        if self.since is not None:
            parts.append(("created >= ?", self.since))
        if self.until is not None:
            parts.append(("created < ?", self.until))
        return " AND ".join(condition for condition, _ in parts) or "1 = 1", [value for _, value in parts]


class RunPage(NamedTuple):
    """Part of a list of runs, newest first, and the length of the whole list."""

    runs: list[Run]
    total: int


def page_of(runs: Runs, which: RunFilter, limit: int, offset: int = 0) -> RunPage:
    """Return a page of the runs that match; only their rows are read."""
    where, values = which.where()
    ids = f"SELECT id FROM runs WHERE {where} ORDER BY created DESC, id DESC LIMIT ? OFFSET ?"
    with runs.readable() as db:
        total = db.execute(f"SELECT count(*) FROM runs WHERE {where}", values).fetchone()[0]
        rows = db.execute(
            f"SELECT * FROM runs WHERE id IN ({ids}) ORDER BY created DESC, id DESC", (*values, limit, offset)
        )
        return RunPage([Run.of(row) for row in rows], total)


def choices_of(runs: Runs, column: str) -> list[str]:
    """Return the different graphs or profiles of all runs."""
    assert column in ("graph", "profile")
    with runs.readable() as db:
        query = f"SELECT DISTINCT {column} FROM runs WHERE {column} != '' ORDER BY 1"
        return [row[0] for row in db.execute(query)]
