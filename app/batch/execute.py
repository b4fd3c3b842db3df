"""Execution of a batch in this process, a run on each device; what has an outcome is not run again."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Protocol

from pleinair.app.batch.outcomes import FILES, Entry, Outcomes, Place
from pleinair.app.batch.plan import Item, Plan
from pleinair.app.engines import devices_of
from pleinair.app.paths import Paths
from pleinair.app.runs.ahead import Ahead, split_runs
from pleinair.app.runs.at_once import results_of
from pleinair.app.runs.events import Ended, Event, payloads, read_readable
from pleinair.app.runs.lease import Released
from pleinair.app.runs.request import read_request
from pleinair.app.runs.results import deliver, files
from pleinair.app.runs.row import Run
from pleinair.app.runs.runner import perform
from pleinair.app.runs.store import Busy, Finished, LeaseLost, Runs, Waiting
from pleinair.app.runs.tables import OPEN
from pleinair.app.trace.view import view_of
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import PleinairError

MOST_ERRORS = 3  # rows after each other that could not be executed, after which the rest would fail too
ERROR = "error"  # of a row that could not be executed and has no outcome
ERRORS = (ERROR, "failed", "refused")  # endings that stop a batch which is to stop on errors


@dataclass
class Progress:
    """What is done of a batch."""

    total: int  # images
    done: int = 0  # images with an outcome
    endings: Counter[str] = field(default_factory=Counter)  # of all images of the file, also of earlier calls
    seconds: list[float] = field(default_factory=list)  # that each run of this call took
    errors: list[tuple[int, PleinairError]] = field(default_factory=list)  # of lines without an outcome
    is_interrupted: bool = False
    at_once: int = 1  # runs at work

    @property
    def seconds_left(self) -> float | None:
        """The seconds that the rest takes by the median of this call's runs, None before the first.

        The first run on each device counts only while there is no other: it loads the models.
        """
        if not self.seconds:
            return None
        seconds = median(self.seconds[self.at_once :] or self.seconds)
        return (self.total - self.done) * seconds / self.at_once


def left_of(plan: Plan, entries: Collection[Place]) -> list[Item]:
    """Return the rows that lack an outcome."""

    def is_left(item: Item) -> bool:
        return any((item.row.key, number) not in entries for number in range(1, item.num_images + 1))

    return list(filter(is_left, plan.items))


class Watch(Protocol):
    """What is told of a batch at work, from the threads of its runs."""

    def begin(self, item: Item, run: Run) -> None:
        """A run begins, or goes on."""

    def event(self, run: Run, event: Event) -> None:
        """A run has a new event."""

    def end(self, item: Item, run: Run | None, ending: str, reason: str, seconds: float) -> None:
        """A run has ended, waits or is busy elsewhere, or (None) could not be executed ("error").

        One thread at a time calls this.
        """


@dataclass(frozen=True)
class _Share:
    """Images of a row that one device executes in turn."""

    item: Item
    numbers: Sequence[int]


class Batch:
    """Rows of a file that are executed into a folder, and the outcomes there.

    Args:
        plan: the rows.
        outcomes: of the folder, entered.
        runs: the run table.
        places: of the home.
        retry: whether failed runs are tried again from their last step.
    """

    def __init__(
        self, plan: Plan, outcomes: Outcomes, runs: Runs, places: Paths, *, retry: bool = False
    ) -> None:
        self._plan, self._outcomes, self._runs, self._places = plan, outcomes, runs, places
        self._rows = {item.row.key: item.row for item in plan.items}
        self._errors_in_a_row = 0
        self._lock = threading.Lock()  # of the outcomes, the progress, and the end of a run
        entries = [entry for entry in outcomes.entries.values() if entry["key"] in self._rows]
        self._retried = {entry["run"] for entry in entries if retry and entry["status"] == "failed"}
        stale = {place for entry in entries if (place := self._stale(entry))}
        for entry in entries:
            self._restore(entry)
        outcomes.update(self._rows, stale)
        self.progress = Progress(sum(item.num_images for item in plan.items))
        for entry in self.entries():
            self._count(entry)

    def _stale(self, entry: Entry) -> Place | None:
        """Return the place of an entry whose run is tried again or has another ending by now, else None."""
        run = self._runs.get_some([entry["run"]]).get(entry["run"])
        is_stale = entry["run"] in self._retried or (run and run.status != entry["status"])
        return (entry["key"], entry["image"]) if is_stale else None

    def _restore(self, entry: Entry) -> None:
        """Write the files of an entry again that are neither where it says nor in the folder."""
        paths = [Path(entry[name]) for name in FILES if entry.get(name)]
        folder = self._outcomes.folder
        if not all(path.exists() or (folder / path.name).exists() for path in paths):
            for run in self._runs.get_some([entry["run"]]).values():
                _deliver(run, self._places, folder)

    def entries(self) -> list[Entry]:
        """Return the outcomes of the rows of this file, in the order of their lines."""
        entries = (entry for entry in self._outcomes.entries.values() if entry["key"] in self._rows)
        return sorted(entries, key=lambda entry: (entry["line"], entry["image"]))

    def left(self) -> list[Item]:
        """Return the rows that have not all their outcomes."""
        return left_of(self._plan, self._outcomes.entries)

    def execute(self, watch: Watch, stop: threading.Event, *, stop_on_error: bool = False) -> None:
        """Execute the rows that are left; a run's outcome is on disk before its device begins the next.

        Args:
            watch: is told what happens.
            stop: once set, the runs at work are released after their step; the next call goes on from there.
            stop_on_error: whether nothing is begun after a run that failed or was refused.

        Raises:
            PleinairError: several rows after each other could not be executed, or an outcome not be written.
        """
        os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries would break the view
        has_ended = threading.Event()

        def work(share: _Share) -> None:
            if not (has_ended.is_set() or stop.is_set()):
                endings = self._execute_share(share, watch, stop)
                if stop_on_error and endings.intersection(ERRORS):
                    has_ended.set()

        with self._runs:
            for devices, items in groupby(self.left(), self._devices):
                self.progress.at_once = devices
                shares = [share for item in items for share in self._shares(item, devices)]
                with closing(results_of(shares, work, devices, stop)) as results:
                    list(results)
            self.progress.is_interrupted = stop.is_set()
            self._outcomes.update(self._rows)

    def _devices(self, item: Item) -> int:
        """Return how many devices the generator of a row may use at once, at least 1."""
        return max(1, len(devices_of(self._plan.requests[item.kind].settings)))

    def _shares(self, item: Item, devices: int) -> list[_Share]:
        """Return the images of a row as shares that one device executes in turn."""
        batch = int(self._plan.requests[item.kind].settings.generator.arguments.get("batch", 1))
        numbers = range(1, item.num_images + 1)
        return [_Share(item, share) for share in split_runs(numbers, devices, batch)]

    def _execute_share(self, share: _Share, watch: Watch, stop: threading.Event) -> set[str]:
        """Execute runs of a row; return how they ended.

        Raises the error of a row that could not be executed, if the rows before had one too.
        """
        endings, item = set(), share.item
        try:
            with self._lock:
                runs = item.submit(self._runs)
            numbered = [(read_request(run.request_json).number, run) for run in runs]
            numbered = [(number, run) for number, run in numbered if number in share.numbers]
            ahead = Ahead([run for _, run in numbered])
            for number, run in numbered:
                if (item.row.key, number) not in self._outcomes.entries and not stop.is_set():
                    endings.add(self._execute_run(item, run, number, watch, stop, ahead))
            self._errors_in_a_row = 0
        except PleinairError as error:
            with self._lock:
                self.progress.errors.append((item.row.line, error))
                self._errors_in_a_row += 1
                watch.end(item, None, ERROR, str(error), 0.0)
                if self._errors_in_a_row >= MOST_ERRORS:
                    raise
            endings.add(ERROR)
        return endings

    def _execute_run(
        self, item: Item, run: Run, number: int, watch: Watch, stop: threading.Event, ahead: Ahead
    ) -> str:
        """Execute a run, or what is left of it, and write its outcome; return how it ended."""
        started, has_ended = time.monotonic(), run.status not in OPEN and run.id not in self._retried
        if not has_ended:
            watch.begin(item, run)
            try:
                run = self._perform(run, watch, stop, ahead)
            except Released:
                return "released"
            except (Busy, LeaseLost) as error:
                return self._end(item, run, "busy", str(error), watch)
        seconds = time.monotonic() - started
        if run.status in OPEN:
            return self._end(item, run, "waiting", f"`pleinair runs answer {run.id}` answers it", watch)
        if has_ended and not all(path.exists() for path in files(run, read_request(run.request_json))):
            _deliver(run, self._places)
        view = view_of(run, self._places)
        row = item.row
        about = {"line": row.line, "id": row.id, "key": row.key, "image": number, "columns": row.columns}
        entry = about | view.model_dump(mode="json")
        with self._lock:
            self._outcomes.append(entry)
            self.progress.seconds += [] if has_ended else [seconds]
            self._count(entry)
            watch.end(item, run, view.status, view.reason, seconds)
        return view.status

    def _perform(self, run: Run, watch: Watch, stop: threading.Event, ahead: Ahead) -> Run:
        is_retried = run.id in self._retried

        def on_event(event: Event) -> None:
            watch.event(run, event)

        try:
            return perform(self._runs, run, self._places, on_event, reopen=is_retried, stop=stop, ahead=ahead)
        except (Finished, Waiting):  # another process has just worked on it
            return self._runs.get(run.id)
        except PleinairError:
            raise
        except Exception as error:  # outside of the steps, whose errors are outcomes
            raise PleinairError(f"run {run.id}: {type(error).__name__}: {error}") from error

    def _end(self, item: Item, run: Run, ending: str, reason: str, watch: Watch) -> str:
        """Count a run that has no outcome yet."""
        with self._lock:
            self.progress.endings[ending] += 1
            watch.end(item, run, ending, reason, 0.0)
        return ending

    def _count(self, entry: Entry) -> None:
        self.progress.done += 1
        self.progress.endings[entry["status"]] += 1


def _deliver(run: Run, places: Paths, out: Path | None = None) -> None:
    """Write the files of a run that has ended, to its folder or another, if it has an image."""
    ends = payloads(read_readable(places.events(run.id)).events, Ended)
    if run.status != "failed" and ends:
        store = ArtifactStore(places.pictures(run.id))
        deliver(run, read_request(run.request_json), ends[-1], store, out)
