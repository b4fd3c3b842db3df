"""Presence of workers: each locks a file of the home as long as it works, and is in a shared database."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from pleinair.app.paths import Paths
from pleinair.app.runs.owner import new_owner
from pleinair.app.runs.store import Runs
from pleinair.tools.types import PleinairError

BEAT = 10.0  # seconds between two entries of a worker in the database
GONE = 3 * BEAT  # seconds without an entry after which a worker is not there any more
ENTER = (
    "INSERT INTO workers (id, name, seen) VALUES (?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET seen = excluded.seen"
)


def lock_file(places: Paths) -> Path:
    """Return the file that workers lock, shared; nobody else can lock it alone while there is one."""
    return places.home / "worker.lock"


@contextmanager
def present(places: Paths) -> Iterator[None]:
    """Be known as a worker of the home for the block, to all processes of this machine.

    Where the runs are in a database, also to all machines with it.
    """
    places.home.mkdir(parents=True, exist_ok=True)
    with lock_file(places).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # workers share it
        with _entered(Runs(places.table)) if places.database else nullcontext():
            yield


def workers_of(places: Paths) -> list[str]:
    """Return the workers that the database of the runs has heard of lately, such as "process 12 on a"."""
    with Runs(places.table).readable() as db:
        rows = db.execute("SELECT name FROM workers WHERE seen > ? ORDER BY name", (time.time() - GONE,))
        return [name for (name,) in rows]


@contextmanager
def _entered(runs: Runs) -> Iterator[None]:
    """Enter this process in the database again and again, for the block."""
    worker, is_over = new_owner(), threading.Event()
    id = worker.model_dump_json()

    def enter() -> None:
        with runs.transaction() as db:
            db.execute("DELETE FROM workers WHERE seen < ?", (time.time() - GONE,))
            db.execute(ENTER, (id, str(worker), time.time()))

    def repeat() -> None:
        while not is_over.wait(BEAT):
            with suppress(PleinairError):  # it may be back at the next time
                enter()

    enter()
    thread = threading.Thread(target=repeat, daemon=True, name="presence")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        with suppress(PleinairError), runs.transaction() as db:
            db.execute("DELETE FROM workers WHERE id = ?", (id,))
