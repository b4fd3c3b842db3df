"""`pleinair batch`: a file of prompts is checked, confirmed where it costs money, and executed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pleinair.app.cli.draw import GRAPHS
from pleinair.app.cli.options import Json, Library, License, Profile, Setting
from pleinair.app.cli.run import stopping_on_interrupt
from pleinair.app.cli.terminal import (
    CODES,
    duration,
    explained,
    has_terminal,
    leave,
    new_console,
    progress_bar,
    quiet,
    say,
    shown_on,
)
from pleinair.app.texts import printable, printable_json
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from pleinair.app.batch.execute import Batch, Progress
    from pleinair.app.batch.plan import BatchEstimate, Item, Plan
    from pleinair.app.batch.summary import BatchSummary
    from pleinair.app.runs.events import Event
    from pleinair.app.runs.row import Run

File = Annotated[str, typer.Argument(help="Prompts: .txt, .csv or .jsonl; - for standard input.")]
Folder = Annotated[str, typer.Option("--out", metavar="DIR", help="The folder for the results.")]
Graph = Annotated[str | None, typer.Option(help=f"The steps, for rows that set none: {GRAPHS}.")]
Seed = Annotated[int, typer.Option(help="From which rows without a seed derive theirs.")]
Yes = Annotated[bool, typer.Option("--yes", help="Confirm what costs money.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and estimate; write nothing.")]
StopOnError = Annotated[
    bool, typer.Option("--stop-on-error", help="Stop at the first run that fails or is refused.")
]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Try failed runs again from their last step.")]
MOST_NAMES = 500  # characters of the names of columns
MOST_WORDS = 60  # characters of a prompt in a line of progress


def batch(
    file: File,
    out: Folder,
    profile: Profile = None,
    graph: Graph = None,
    seed: Seed = 0,
    library: Library = None,
    license: License = None,
    setting: Setting = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    stop_on_error: StopOnError = False,
    retry_failed: Retry = False,
    as_json: Json = False,
) -> None:
    """Validate all rows, then execute those without an outcome, one after the other or one on each device."""
    from pleinair.app.api import home, run_table
    from pleinair.app.batch.execute import Batch
    from pleinair.app.batch.outcomes import Outcomes
    from pleinair.app.batch.summary import summary_of
    from pleinair.app.settings import assignments

    quiet()
    with explained():
        folder = _folder(out)
        choices = {"profile": profile, "graph": graph, "license": license}
        options = {name: value for name, value in choices.items() if value}
        overrides = assignments(setting, {"library.folder": library})
        plan = _planned(file, options, overrides, folder, seed)
        estimate = _estimated(plan, folder, retry_failed)
        if dry_run:
            _print_estimate(estimate, as_json)
            return
        _confirm(estimate, yes)
        with Outcomes(folder) as outcomes:
            work = Batch(plan, outcomes, run_table(), home(), retry=retry_failed)
            _execute(work, stop_on_error)
            summary = summary_of(work, run_table(), home(), folder)
    _print_summary(summary, as_json)
    leave(_ending(summary))


def _folder(out: str) -> Path:
    from pleinair.tools.storage.files import checked_path

    folder = checked_path(out, "--out").absolute()
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--out {str(folder)!r}: it is a file; must be a folder")
    return folder


def _planned(file: str, options: dict[str, Any], overrides: dict[str, Any], folder: Path, seed: int) -> Plan:
    from pleinair.app.batch.plan import plan_of
    from pleinair.app.batch.rows import read_rows
    from pleinair.app.batch.source import open_source

    source = open_source(file, sys.stdin.buffer.read)
    with _listed_faults():
        rows = read_rows(source, options, overrides)
        if columns := dict.fromkeys(name for row in rows for name in row.columns):
            names = printable(", ".join(columns))[:MOST_NAMES]
            say(f"your own columns, only copied to the outcomes: {names}", err=True)
        with progress_bar("Checking rows") as on_row:
            return plan_of(source.name, rows, folder, seed, on_row)


@contextmanager
def _listed_faults() -> Iterator[None]:
    """Print the faults of a file, each on its line, and exit with the code of bad input."""
    from pleinair.app.batch.source import BadRows

    try:
        yield
    except BadRows as error:
        say(f"pleinair: {printable(error.heading)}", err=True, indent=10)
        for line in error.lines():
            say(f"          {printable(line)}", err=True, indent=12)
        leave("bad input")


def _estimated(plan: Plan, folder: Path, retry: bool) -> BatchEstimate:
    from pleinair.app.api import home
    from pleinair.app.batch.execute import left_of
    from pleinair.app.batch.outcomes import read_entries
    from pleinair.app.batch.plan import estimate

    entries = read_entries(folder).items()
    done = [place for place, entry in entries if not (retry and entry["status"] == "failed")]
    return estimate(plan, left_of(plan, set(done)), home())


def _print_estimate(estimate: BatchEstimate, as_json: bool) -> None:
    if as_json:
        typer.echo(printable_json(estimate.model_dump(mode="json")))
    else:
        say("\n".join(estimate.lines()), indent=12)


def _confirm(estimate: BatchEstimate, confirmed: bool) -> None:
    """Show what costs money; a terminal is asked unless it is confirmed. Raise `BadInput` without one."""
    if not (estimate.is_paid and estimate.left):
        return
    say("\n".join(estimate.lines()), err=True, indent=12)
    if not confirmed and not has_terminal():
        raise BadInput("these images cost money, and there is no terminal to ask", "Confirm it with --yes.")
    if not confirmed:
        typer.confirm("Generate them?", abort=True, err=True)


def _execute(work: Batch, stop_on_error: bool) -> None:
    if not work.left():
        return
    with stopping_on_interrupt() as stop, _watching(work.progress) as watch:
        work.execute(watch, stop, stop_on_error=stop_on_error)


def _print_summary(summary: BatchSummary, as_json: bool) -> None:
    for line in summary.lines():
        say(printable(line), err=True)
    if as_json:
        typer.echo(printable_json(summary.model_dump(mode="json")))
    else:
        for path in (summary.outcomes, *summary.sheets):
            typer.echo(path)


def _ending(summary: BatchSummary) -> str:
    """Return the ending whose exit code is that of the batch."""
    if summary.is_interrupted:
        return "cancelled"
    endings = [*summary.endings, *["failed"] * bool(summary.errors)]
    return max(endings, key=CODES.__getitem__, default="accepted")


@contextmanager
def _watching(progress: Progress) -> Iterator[_Lines]:
    """Show the progress of a batch on standard error: a bar on a terminal, else a line a run."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    console = new_console(err=True)
    if not console.is_terminal:
        yield _Lines(progress)
        return
    text = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True))
    left = TextColumn("{task.fields[left]}", markup=False)
    with (
        shown_on(console),
        Bar(
            MofNCompleteColumn(), BarColumn(20), left, text, console=console, transient=True, expand=True
        ) as bar,
    ):
        yield _BarAndLines(progress, bar)


class _Lines:
    """Progress of a batch as a line a run."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begin(self, item: Item, run: Run) -> None:
        """Do nothing: a line tells the end of a run."""

    def event(self, run: Run, event: Event) -> None:
        """Do nothing."""

    def end(self, item: Item, run: Run | None, ending: str, reason: str, seconds: float) -> None:
        """Print how a run ended."""
        progress = self._progress
        why = f": {reason}" if CODES.get(ending, 1) else ""
        count = f"[{progress.done}/{progress.total}]"
        text = f"{count} {ending} {seconds:.1f} s, line {item.row.line}, {_short(item.row.prompt)}{why}"
        say(printable(f"{text}{self.left and f'; {self.left}'}"), err=True)

    @property
    def left(self) -> str:
        """The time left in words, "" where it is not known."""
        seconds = self._progress.seconds_left
        return f"{duration(seconds)} left" if seconds else ""


class _BarAndLines(_Lines):
    """Progress of a batch as a bar with the runs at work, and a line for each run that did not succeed."""

    def __init__(self, progress: Progress, bar: Bar) -> None:
        super().__init__(progress)
        self._bar, self._lock = bar, threading.Lock()
        self._prompts, self._activities = dict[str, str](), dict[str, str]()  # of the runs at work
        self._task = bar.add_task("", total=progress.total, completed=progress.done, left="")

    def begin(self, item: Item, run: Run) -> None:
        """Show the prompt of a run."""
        self._prompts[run.id] = _short(item.row.prompt)
        self._show(run.id, "")

    def event(self, run: Run, event: Event) -> None:
        """Show what a run does."""
        from pleinair.app.runs.events import Progress as StepProgress
        from pleinair.app.runs.events import StepStarted
        from pleinair.app.trace.activity import activity

        if isinstance(event.data, StepStarted | StepProgress):
            self._show(run.id, activity(event))

    def end(self, item: Item, run: Run | None, ending: str, reason: str, seconds: float) -> None:
        """Move the bar, and print an ending that is no success."""
        if CODES.get(ending, 1):
            super().end(item, run, ending, reason, seconds)
        self._show(run.id if run else "", None)

    def _show(self, run_id: str, activity: str | None) -> None:
        """Show the endings and a line for each run at work; None for one that has ended."""
        progress = self._progress
        with self._lock:
            self._activities.pop(run_id, None)
            if activity is not None:
                self._activities[run_id] = activity
            endings = ", ".join(f"{count} {ending}" for ending, count in sorted(progress.endings.items()))
            runs = [
                " · ".join(filter(None, (self._prompts[run], text)))
                for run, text in sorted(self._activities.items())
            ]
            lines = [endings, *runs] if len(runs) > 1 else [" · ".join(filter(None, (endings, *runs)))]
            text = "\n".join(printable(line) for line in lines)
            self._bar.update(self._task, completed=progress.done, left=self.left, description=text)


def _short(prompt: str) -> str:
    text = printable(prompt)
    return f"{text[:MOST_WORDS]}…" if len(text) > MOST_WORDS else text
