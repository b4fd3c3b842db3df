"""A worker that outlives the program which needs it: started when runs are queued and no worker is there."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import threading

from pleinair.app.paths import Paths
from pleinair.app.runs.presence import lock_file, workers_of
from pleinair.app.runs.store import Runs
from pleinair.app.settings import home_of, load

IDLE = 600.0  # seconds without a queued run after which a detached worker ends
LOG = "worker.log"  # in the home; of the detached worker that was started last
log = logging.getLogger(__name__)


def ensure_worker(places: Paths) -> int | None:
    """Start a detached worker unless the home has a worker; return its process id if one was started.

    It takes queued runs until there has been none for `IDLE` seconds. It ends with neither this process nor
    its terminal, and writes what goes wrong to the file `worker.log` in the home. Where the runs are in a
    database none is started, since workers may be on any machine: a warning says that there is none.
    """
    if places.database:
        if not workers_of(places):
            log.warning("No worker is there: the runs wait until `pleinair worker` is started on a machine.")
        return None
    places.home.mkdir(parents=True, exist_ok=True)
    with lock_file(places).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        with (places.home / LOG).open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "pleinair.app.runs.detached", str(file.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=places.home,
                env={**os.environ, **places.environment},
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
    from pleinair.app.runs.worker import work

    places, is_idle = home_of(load(untrusted="ignore")), False
    runs = Runs(places.table)
    while not (is_idle or stop.is_set()):
        fcntl.flock(lock, fcntl.LOCK_SH)
        work(runs, places, stop, IDLE)
        fcntl.flock(lock, fcntl.LOCK_UN)  # before the look: who queues a run now starts a worker
        is_idle = not runs.unfinished()


if __name__ == "__main__":
    main()
