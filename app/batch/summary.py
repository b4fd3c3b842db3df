"""Summary of a batch: what its rows came to, where the results are, and what the library lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pleinair.app.batch.execute import Batch
from pleinair.app.batch.outcomes import OUTCOMES, Entry
from pleinair.app.batch.sheet import write_sheets
from pleinair.app.library.gaps import Gap, gaps_of
from pleinair.app.library.retrievals import RetrievedCache
from pleinair.app.paths import Paths
from pleinair.app.runs.store import Runs
from pleinair.app.texts import counted
from pleinair.tools.types import Usage, Value

MOST_GAPS = 10  # that are listed on a terminal


class RowError(Value):
    """Row that could not be executed and has no outcome yet."""

    line: int
    error: str


class BatchSummary(Value):
    """What a batch came to, over all calls that worked on it."""

    images: int  # of the file
    done: int  # images with an outcome
    endings: dict[str, int]  # how many ended how; `waiting` and `busy` have no outcome yet
    is_interrupted: bool
    errors: tuple[RowError, ...] = ()
    usage: Usage
    gaps: tuple[Gap, ...] = ()  # those of the most runs first
    outcomes: str  # file
    sheets: tuple[str, ...] = ()  # files; none after an interruption

    @property
    def left(self) -> int:
        """The number of images without an outcome."""
        return self.images - self.done

    def lines(self) -> Iterator[str]:
        """Yield the lines for a terminal."""
        endings = ", ".join(f"{count} {ending}" for ending, count in sorted(self.endings.items()))
        yield f"{self.done} of {counted(self.images, 'image')} done" + f": {endings}" * bool(endings)
        for gap in self.gaps[:MOST_GAPS]:
            yield f"the library lacks: {gap.concept} ({counted(len(gap.runs), 'run')})"
        if len(self.gaps) > MOST_GAPS:
            yield f"and {len(self.gaps) - MOST_GAPS} concepts more, in {self.outcomes}"
        if self.left:
            yield f"{self.left} left: the same command goes on with them"
        if failed := self.endings.get("failed"):
            yield f"{failed} failed: --retry-failed tries them again from their last step"


def summary_of(batch: Batch, runs: Runs, places: Paths, folder: Path) -> BatchSummary:
    """Return the summary of a batch and write its contact sheets, these not after an interruption."""
    entries, progress = batch.entries(), batch.progress
    gaps = _gaps(entries, runs, places)
    has_sheets = bool(entries) and not progress.is_interrupted
    return BatchSummary(
        images=progress.total,
        done=progress.done,
        endings=dict(progress.endings),
        is_interrupted=progress.is_interrupted,
        errors=tuple(RowError(line=line, error=str(error)) for line, error in progress.errors),
        usage=Usage.total([Usage.model_validate(entry["usage"]) for entry in entries]),
        gaps=tuple(gaps),
        outcomes=str(folder / OUTCOMES),
        sheets=tuple(map(str, write_sheets(folder, entries, gaps))) if has_sheets else (),
    )


def _gaps(entries: Sequence[Entry], runs: Runs, places: Paths) -> list[Gap]:
    """Return what the library lacked in the runs of a batch."""
    of_batch = {entry["run"] for entry in entries}
    retrieved = RetrievedCache(runs, places).all().runs
    return gaps_of(record for record in retrieved if record.run in of_batch)
