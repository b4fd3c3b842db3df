"""Threads of torch on the CPU: one for a small model, and its share for each of several processes.

Threads of one operation wait for each other at its end: for a small one the waiting takes longer than the
computing, and on a loaded machine the thread that the system has put aside holds up the others. The load
itself does not count: a larger model's numbers depend on its threads in their last bits, and the same request
must give the same image whatever else runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# parameters × tokens of a step below which one thread computes it: tens of milliseconds, of which a second
# thread saves half on an idle machine and takes several times as long on a loaded one (evals/LOG.md)
SMALL = 1e9


def step_threads(work: float, sharers: int = 1) -> int:
    """Return the most threads for a step of `work` parameters × tokens on a CPU of `sharers` processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if work < SMALL else max(1, cores // sharers)


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Let torch compute on at most `count` threads in the block.

    The number of threads belongs to the process: a block that ends in another thread may restore it earlier.
    """
    import torch

    before = torch.get_num_threads()
    if before <= count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
