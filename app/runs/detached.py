"""A worker that outlives the program which needs it: started when runs are queued and no worker is there."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading

from pleinair.app.paths import Paths
from pleinair.app.runs.presence import lock_file

IDLE = 600.0  # seconds without a queued run after which a detached worker ends
LOG = "worker.log"  # in the home; of the detached worker that was started last


def ensure_worker(places: Paths) -> int | None:
    """Start a detached worker unless the home has a worker; return its process id if one was started.

    It takes queued runs until there has been none for `IDLE` seconds. It ends with neither this process nor
    its terminal, and writes what goes wrong to the file `worker.log` in the home.
    """
    places.home.mkdir(parents=True, exist_ok=True)
    with lock_file(places).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        with (places.home / LOG).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pleinair.app.runs.detached", str(file.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=places.home,
                env={**os.environ, "PLEINAIR_HOME": str(places.home)},
                pass_fds=(file.fileno(),),  # the worker has the lock, so that no second one is started
                start_new_session=True,
            )
    threading.Thread(target=process.wait, daemon=True, name="reaper").start()  # where it ends before this one
    return process.pid


def main() -> None:
    """Execute queued runs; the only argument is the number of the open lock file."""
    from pleinair.app.runs.worker import SIGNALS, stopped_by_signals

    with stopped_by_signals(*SIGNALS) as stop:
        work_until_idle(int(sys.argv[1]), stop)


def work_until_idle(lock: int, stop: threading.Event) -> None:
    """Execute queued runs until there was none for `IDLE` seconds; `lock` is the open lock file.

    A run that was queued after the last look, by a program that saw the lock, is executed too.
    """
    from pleinair.app.api import home, run_table
    from pleinair.app.runs.worker import work

    is_idle = False
    while not (is_idle or stop.is_set()):
        fcntl.flock(lock, fcntl.LOCK_SH)
        work(run_table(), home(), stop, IDLE)
        fcntl.flock(lock, fcntl.LOCK_UN)  # before the look: who queues a run now starts a worker
        is_idle = not run_table().unfinished()


if __name__ == "__main__":
    main()
