"""Worker: a process that executes queued runs until it is stopped, one after the other.

Where the settings name several devices, it executes as many runs at once, in threads.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from pleinair.app.engines import devices_of
from pleinair.app.paths import Paths
from pleinair.app.runs.lease import Lease, Released
from pleinair.app.runs.presence import present
from pleinair.app.runs.row import Run
from pleinair.app.runs.runner import MOST_DEATHS, perform
from pleinair.app.runs.signals import handling
from pleinair.app.runs.store import Busy, Finished, LeaseLost, Runs, Waiting
from pleinair.app.settings import home_of, load
from pleinair.tools.storage.away import Away
from pleinair.tools.types import BadInput, Outcome, PleinairError

POLL = 0.2  # seconds between two looks at the queue, where nobody tells of a new run
PAUSE = 30.0  # seconds before a run is taken again that could not be executed, such as on a full disk
AWAY = 5.0  # seconds between two looks at a database that has been away for half a minute
PREVIEW = "preview.png"  # among the files of a run that is being executed
PREVIEWS = 1.0  # seconds from one to the next on object storage, where each is a request
SIGNALS = (signal.SIGINT, signal.SIGTERM)
log = logging.getLogger(__name__)


def work(
    runs: Runs,
    places: Paths,
    stop: threading.Event,
    idle: float | None = None,
    on_end: Callable[[Run], None] = lambda run: None,
    *,
    look: threading.Event | None = None,
    tell: Callable[[], None] = lambda: None,
    at_once: int = 1,
) -> None:
    """Execute queued runs until `stop` is set, or for `idle` seconds there was none.

    Args:
        runs: the table with the queue.
        places: of the home.
        stop: once set, a run that is being executed is released at its next step, for another worker.
        idle: None: any time.
        on_end: called with the row of each run that has ended, or waits for an approval.
        look: set by others when there is something new in the queue, or to end the pause before a stop.
        tell: called at every event and preview.
        at_once: runs that are executed at the same time; see `runs_at_once`.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries would fill the log
    worker, look = _Worker(runs, places, stop, tell), look or threading.Event()

    def work_on() -> None:
        try:
            while not stop.is_set() and (idle is None or worker.idle_seconds() < idle):
                try:
                    if run := worker.execute_next():
                        on_end(runs.get(run.id))
                        continue
                except Away as error:
                    log.error("%s It is tried again.", error)
                    stop.wait(AWAY)
                look.wait(POLL)
                look.clear()
        except BaseException:
            stop.set()  # the other threads end, too
            raise

    runs.unfinished()  # a worker does not start without its database
    with runs, present(places):
        if at_once == 1:
            work_on()
            return
        with ThreadPoolExecutor(at_once, "runs") as threads:
            for future in [threads.submit(work_on) for _ in range(at_once)]:
                future.result()


def runs_at_once() -> int:
    """Return how many runs a worker executes at once: one for each device of the configured generator."""
    return max(1, len(devices_of(load())))


class _Worker:
    def __init__(self, runs: Runs, places: Paths, stop: threading.Event, tell: Callable[[], None]) -> None:
        self._runs, self._places, self._stop, self._tell = runs, places, stop, tell
        self._lock = threading.Lock()  # of all that follows, which the threads share
        self._faults: Counter[str] = Counter()  # by run
        self._paused: dict[str, float] = {}  # runs, and until when
        self._at_work: set[str] = set()  # runs that a thread has taken
        self._since = time.monotonic()  # the end of the last run

    def idle_seconds(self) -> float:
        """Return how long there has been no run to execute."""
        return 0.0 if self._at_work else time.monotonic() - self._since

    def execute_next(self) -> Run | None:
        """Execute the next run of the queue; return it if it was brought to its end or a question here."""
        run = self._next()
        if run is None:
            return None
        try:
            has_ended = self._execute(run)
            if has_ended:
                self._since = time.monotonic()
            return run if has_ended else None
        finally:
            self._at_work.discard(run.id)

    def _next(self) -> Run | None:
        """Claim the first run of the queue that is neither paused nor taken by another thread."""
        with self._lock:
            now = time.monotonic()
            self._paused = {run: until for run, until in self._paused.items() if until > now}
            waiting = (run for run in self._runs.queue() if run.id not in self._at_work | self._paused.keys())
            run = next(waiting, None)
            if run:
                self._at_work.add(run.id)
            return run

    def _execute(self, run: Run) -> bool:
        files, shown = self._places.files(run.id), -math.inf

        def show(png: bytes) -> None:
            nonlocal shown
            if files.local or time.monotonic() - shown >= PREVIEWS:
                with suppress(PleinairError):  # a full disk: the run itself goes on
                    files.write(PREVIEW, png, durable=False)
                shown = time.monotonic()
            self._tell()

        try:
            perform(self._runs, run, self._places, lambda _: self._tell(), show, stop=self._stop)
        except (Busy, Finished, LeaseLost, Released, Waiting):
            return False
        except Away as error:  # no fault of the run: the next holder goes on with it
            log.error("Run %s stops here: %s", run.id, error)
            with self._lock:
                self._paused[run.id] = time.monotonic() + AWAY
            return False
        except PleinairError as error:
            log.error("Run %s could not be executed: %s", run.id, error)
            return self._count(run, error)
        except Exception as error:  # the queue goes on
            log.exception("Run %s could not be executed.", run.id)
            return self._count(run, error)
        finally:
            with suppress(PleinairError, OSError):
                files.remove_file(PREVIEW)
            self._tell()
        return True

    def _count(self, run: Run, error: Exception) -> bool:
        """Count a fault outside of the steps; the run is tried again later, or fails, with True."""
        with self._lock:
            self._faults[run.id] += 1
            self._paused[run.id] = time.monotonic() + PAUSE
        if self._faults[run.id] < MOST_DEATHS and not isinstance(error, BadInput):
            return False
        reason = str(error) if isinstance(error, PleinairError) else f"{type(error).__name__}: {error}"
        with suppress(PleinairError), Lease(self._runs, run.id) as lease:
            lease.commit(Outcome(ending="failed", reason=reason[:2000] or "no reason given"))
        return True


@contextmanager
def stopped_by_signals(*signals: signal.Signals) -> Iterator[threading.Event]:
    """Set the event that is yielded at the first of the signals, and exit with 130 at the second."""
    stop = threading.Event()

    def handle(*_: object) -> None:
        if stop.is_set():
            os._exit(130)
        # in a thread, since this handler may interrupt code that holds the lock of the event
        threading.Thread(target=stop.set).start()

    with handling(signals, handle):
        yield stop


def main() -> None:
    """Execute queued runs until standard input ends, or SIGTERM; a line there tells of a new run.

    The only argument is the number of an open file, to which a byte is written at every event.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the server too, which decides
    look = threading.Event()
    with stopped_by_signals(signal.SIGTERM) as stop:

        def listen() -> None:
            while os.read(sys.stdin.fileno(), 1024):  # not buffered: its lock would break the exit
                look.set()
            stop.set()
            look.set()

        threading.Thread(target=listen, daemon=True).start()
        try:
            tell, places = _teller(int(sys.argv[1])), home_of(load(untrusted="ignore"))
            work(Runs(places.table), places, stop, look=look, tell=tell, at_once=runs_at_once())
        except PleinairError as error:
            sys.exit(f"pleinair worker: {error}")


def _teller(file: int) -> Callable[[], None]:
    """Return a function that writes a byte to a pipe, unless it is full or nobody reads it any more."""
    os.set_blocking(file, False)
    os.set_inheritable(file, False)

    def tell() -> None:
        with suppress(OSError):
            os.write(file, b"\n")

    return tell


if __name__ == "__main__":
    main()
