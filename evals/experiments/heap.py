"""Measure what runs leave in the memory of the process that executes them.

The resident memory also counts what the C allocator has got back and keeps. So the bytes in use are printed
beside it, and Python's blocks, threads and open files: a leak is in one of these.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import sys
import tempfile
import threading
from typing import Any

import psutil

from pleinair.evals.experiments.serving import MIB, PROMPT

EVERY = 40  # runs between two measurements


class Mallinfo(ctypes.Structure):
    """State of glibc's allocator, of all its arenas, in bytes (`man mallinfo2`)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def measure(process: psutil.Process) -> dict[str, float]:
    """Return the memory of this process in MiB, its Python blocks, threads and open files."""
    gc.collect()
    state = ctypes.CDLL("libc.so.6").mallinfo2
    state.restype = Mallinfo
    heap = state()
    return {
        "resident MiB": round(process.memory_info().rss / MIB, 1),
        "in use MiB": round((heap.uordblks + heap.hblkhd) / MIB, 2),
        "kept by malloc MiB": round(heap.fordblks / MIB, 2),
        "Python blocks": sys.getallocatedblocks(),
        "threads": threading.active_count(),
        "open files": process.num_fds(),
    }


def run(options: argparse.Namespace) -> None:
    """Execute runs of the pocket models in this process, three of `direct` and one of `pleinair` in turn."""
    from pleinair.app.api import home, run_table, submit
    from pleinair.app.runs.runner import perform

    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"PLEINAIR_HOME": f"{folder}/home", "PLEINAIR_PATHS__OUT": f"{folder}/out"}
        for number in range(1, options.runs + 1):
            row = submit(PROMPT, graph="direct" if number % 4 else "pleinair", seed=number)
            perform(run_table(), row, home(), on_preview=lambda png: None)
            if number in (5, 20) or number % EVERY == 0:
                figures = ", ".join(f"{name} {value}" for name, value in measure(process).items())
                sys.stdout.write(f"{number} runs: {figures}\n")


def add(commands: Any) -> None:
    """Add the command and its option."""
    heap = commands.add_parser("heap", help="what runs leave in memory (glibc)", description=__doc__)
    heap.add_argument("--runs", type=int, default=400, help="runs, one after the other (400)")
    heap.set_defaults(run=run)
