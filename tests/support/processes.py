"""Ends of processes by id."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import psutil


def kill_all(processes: Sequence[psutil.Process], wait: float) -> None:
    """Kill processes, of which some may have ended by themselves, and wait at most `wait` s for their end."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=wait)
