"""Worker: a process that executes queued runs, one after the other, until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pleinair.app.paths import Paths
from pleinair.app.runs.lease import Released
from pleinair.app.runs.runner import perform
from pleinair.app.runs.store import Busy, Finished, LeaseLost, Run, Runs, Waiting

POLL = 0.05  # seconds between two looks at the queue
PREVIEW = "preview.png"  # in the folder of a run that is being executed
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def work(
    runs: Runs,
    places: Paths,
    stop: threading.Event,
    idle: float | None = None,
    on_end: Callable[[Run], None] = lambda run: None,
) -> None:
    """Execute queued runs until `stop` is set, or for `idle` seconds there was none.

    At a stop the run at work is released after its step; `on_end` is called with the row of each other one.
    """
    waited = 0.0
    with runs:
        while not stop.is_set() and (idle is None or waited < idle):
            queue = runs.queue()
            if queue and _execute(runs, queue[0], places, stop):
                waited = 0.0
                on_end(runs.get(queue[0].id))
            else:
                stop.wait(POLL)
                waited += POLL


def _execute(runs: Runs, run: Run, places: Paths, stop: threading.Event) -> bool:
    """Execute a run; return whether this process brought it to its end, or to a question."""
    preview = places.run(run.id) / PREVIEW
    try:
        perform(runs, run, places, on_preview=lambda png: _show(preview, png), stop=stop)
    except (Busy, Finished, LeaseLost, Released, Waiting):
        return False
    finally:
        with suppress(OSError):
            preview.unlink(missing_ok=True)
    return True


def _show(preview: Path, png: bytes) -> None:
    part = preview.with_suffix(".part")
    with suppress(OSError):  # a full disk: the run itself goes on
        part.write_bytes(png)
        part.replace(preview)


@contextmanager
def stopped_by_signals(*signals: signal.Signals) -> Iterator[threading.Event]:
    """Set the event that is yielded at the first of the signals, and exit with 130 at the second."""
    stop = threading.Event()

    def handle(*_: object) -> None:
        if stop.is_set():
            os._exit(130)
        # in a thread, since this handler may interrupt code that holds the lock of the event
        threading.Thread(target=stop.set).start()

    before = {kind: signal.signal(kind, handle) for kind in signals}
    try:
        yield stop
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def main() -> None:
    """Execute queued runs until standard input ends, or SIGTERM."""
    from pleinair.app.api import home, run_table

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the server too, which decides
    with stopped_by_signals(signal.SIGTERM) as stop:

        def watch() -> None:
            while os.read(sys.stdin.fileno(), 1):  # not buffered: its lock would break the exit
                pass
            stop.set()

        threading.Thread(target=watch, daemon=True).start()
        work(run_table(), home(), stop)


if __name__ == "__main__":
    main()
