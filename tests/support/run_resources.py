"""What runs leave in the process that executes them: `python -m support.run_resources WARM MORE`.

A process of its own, as other tests of one process open and close resources meanwhile. It prints its
observations as JSON for the test to check. The environment is that of `quick_engines.install`.
"""

import gc
import json
import os
import sys
import threading
from itertools import count
from typing import Any

import psutil

from pleinair.app.api import draw, home, run_table, submit
from pleinair.app.runs.runner import perform

PROMPT = "first thing and second thing"
GRAPHS = ("direct", "pleinair", "imagerag", "crossmodal")
SEEDS = count()


def execute_round() -> int:
    """Execute each graph by `draw` and by `perform` with previews; return the number of runs."""
    for graph in GRAPHS:
        draw(PROMPT, graph=graph, seed=next(SEEDS))
        row = submit(PROMPT, graph=graph, seed=next(SEEDS))
        perform(run_table(), row, home(), on_preview=lambda png: None)
    return 2 * len(GRAPHS)


def resources() -> dict[str, Any]:
    """Return the Python blocks, threads, child processes and open files that are there."""
    gc.collect()
    return {
        "blocks": sys.getallocatedblocks(),
        "threads": [thread.name for thread in threading.enumerate()],
        "processes": [f"{child.pid} {' '.join(child.cmdline())}" for child in psutil.Process().children()],
        "files": [f"{number} {target}" for number, target in _open_files()],
    }


def _open_files() -> list[tuple[int, str]]:
    opened = []
    for number in sorted(map(int, os.listdir("/proc/self/fd"))):
        try:
            opened.append((number, os.readlink(f"/proc/self/fd/{number}")))
        except FileNotFoundError:  # the folder itself, which was open while it was listed
            continue
    return opened


if __name__ == "__main__":
    warm, more = map(int, sys.argv[1:])
    for _ in range(warm):
        execute_round()
    before = resources()
    runs = sum(execute_round() for _ in range(more))
    print(json.dumps({"runs": runs, "before": before, "after": resources()}))  # noqa: T201
