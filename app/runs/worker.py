"""Worker: a process that executes queued runs, one after the other, until it is stopped."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from pleinair.app.paths import Paths
from pleinair.app.runs.runner import perform
from pleinair.app.runs.store import Busy, Finished, LeaseLost, Run, Runs, Waiting

POLL = 0.05  # seconds between two looks at the queue
PREVIEW = "preview.png"  # in the folder of a run that is being executed


def work(runs: Runs, places: Paths, stop: threading.Event, idle: float | None = None) -> None:
    """Execute queued runs until `stop` is set, or for `idle` seconds there was none."""
    waited = 0.0
    with runs:
        while not stop.is_set() and (idle is None or waited < idle):
            queue = runs.queue()
            if queue and _execute(runs, queue[0], places):
                waited = 0.0
            else:
                stop.wait(POLL)
                waited += POLL


def _execute(runs: Runs, run: Run, places: Paths) -> bool:
    """Execute a run; return whether this process was the one that did."""
    preview = places.run(run.id) / PREVIEW
    try:
        perform(runs, run, places, on_preview=lambda png: _show(preview, png))
    except (Busy, Finished, LeaseLost, Waiting):
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


def main() -> None:
    """Execute queued runs until standard input ends."""
    from pleinair.app.api import home, run_table

    stop = threading.Event()

    def watch() -> None:
        while sys.stdin.buffer.read(1):
            pass
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the server too, which decides
    work(run_table(), home(), stop)


if __name__ == "__main__":
    main()
