"""Presence of workers: each locks a file of the home as long as it works."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pleinair.app.paths import Paths


def lock_file(places: Paths) -> Path:
    """Return the file that workers lock, shared; nobody else can lock it alone while there is one."""
    return places.home / "worker.lock"


@contextmanager
def present(places: Paths) -> Iterator[None]:
    """Be known as a worker of the home for the block, to all processes of this machine."""
    places.home.mkdir(parents=True, exist_ok=True)
    with lock_file(places).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # workers share it
        yield
