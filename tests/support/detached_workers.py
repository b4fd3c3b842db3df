"""Detached workers of the configured home, for tests that look at them and end them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from support.processes import kill_all

from pleinair.app.api import home

SOON = 300.0  # seconds


def detached_workers() -> list[psutil.Process]:
    """Return the detached workers of the home."""
    workers = []
    for process in psutil.process_iter():
        try:
            is_worker = "pleinair.app.runs.detached" in process.cmdline()
            if is_worker and process.environ().get("PLEINAIR_HOME") == str(home().home):
                workers.append(process)
        except psutil.Error:
            continue
    return workers


@contextmanager
def detached_workers_ended() -> Iterator[None]:
    """End the home's detached workers after the block, by id."""
    try:
        yield
    finally:
        kill_all(detached_workers(), SOON)
