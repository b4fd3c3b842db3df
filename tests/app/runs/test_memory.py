"""Runs leave nothing in the process that executes them."""

import gc
import sys
import threading
from pathlib import Path

import psutil

from pleinair.app.api import home, run_table, submit
from pleinair.app.runs.runner import perform

WARM, MORE = 8, 8  # runs before the first measurement, and until the second
LEFT = 40  # Python blocks a run that may stay, for caches


def executed(count: int) -> tuple[int, int, int]:
    """Execute runs, and return the Python blocks, threads and open files that are there afterwards."""
    for number in range(count):
        row = submit(
            "first thing and second thing", graph="direct" if number % 4 else "pleinair", seed=number
        )
        perform(run_table(), row, home(), on_preview=lambda png: None)
    gc.collect()
    return sys.getallocatedblocks(), threading.active_count(), psutil.Process().num_fds()


def test_runs_leave_nothing_behind(place: Path) -> None:
    blocks, threads, files = executed(WARM)
    later = executed(MORE)
    assert later[0] - blocks < LEFT * MORE
    assert later[1] <= threads and later[2] <= files  # other tests may leave some that end meanwhile
