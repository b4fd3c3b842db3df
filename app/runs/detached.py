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
        # the worker inherits the lock, so that no second one is started before it is present
        os.set_inheritable(file.fileno(), True)
        with (places.home / LOG).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pleinair.app.runs.detached", str(file.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=places.home,
                env={**os.environ, "PLEINAIR_HOME": str(places.home)},
                pass_fds=(file.fileno(),),
                start_new_session=True,
            )
    threading.Thread(target=process.wait, daemon=True, name="reaper").start()  # where it ends before this one
    return process.pid


def main() -> None:
    """Execute queued runs; the only argument is the number of the open lock file."""
    from pleinair.app.api import home, run_table
    from pleinair.app.runs.worker import SIGNALS, stopped_by_signals, work

    fcntl.flock(int(sys.argv[1]), fcntl.LOCK_SH)
    with stopped_by_signals(*SIGNALS) as stop:
        work(run_table(), home(), stop, IDLE)


if __name__ == "__main__":
    main()
