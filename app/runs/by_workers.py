"""Runs of this program that workers execute, on any machine, as the setting `cluster.workers` wants it."""

from __future__ import annotations

import socket
import threading
import time

from pleinair.app.paths import Paths
from pleinair.app.runs.detached import ensure_worker
from pleinair.app.runs.events import Ended, OnEvent, payloads, read_readable
from pleinair.app.runs.follow import POLL, Follower
from pleinair.app.runs.lease import Released
from pleinair.app.runs.request import read_request
from pleinair.app.runs.results import deliver, files
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Runs
from pleinair.tools.storage.artifacts import ArtifactStore


def client_here() -> str:
    """Return in whose name this machine queues runs; clients take turns."""
    return socket.gethostname()


def await_workers(
    runs: Runs,
    run: Run,
    places: Paths,
    on_event: OnEvent | None,
    *,
    reopen: bool,
    stop: threading.Event | None,
) -> None:
    """Queue a run for workers unless it is, and wait until it has ended or waits for an approval.

    Its events are passed on, also those of before. Raises `Finished` for a run that cannot go on, and
    `Released` once `stop` is set, while the workers go on.
    """
    runs.hand_over(run.id, client_here(), reopen=reopen)
    ensure_worker(places)
    follower = Follower(runs, places, run.id)
    while True:
        events, is_final = follower.look()
        if on_event:
            for event in events:
                on_event(event)
        if is_final:
            return
        if stop and stop.is_set():
            raise Released(f"run {run.id} goes on, executed by workers")
        time.sleep(POLL)


def deliver_here(run: Run, places: Paths) -> None:
    """Write the results of a run that another machine's worker has executed, unless they are here.

    Raises `PleinairError` where the folder cannot be written to; the run itself has ended.
    """
    request = read_request(run.request_json)
    if run.outcome is None or files(run, request)[1].exists():
        return
    if ends := payloads(read_readable(places.events(run.id)).events, Ended):
        deliver(run, request, ends[-1], ArtifactStore(places.pictures(run.id)))
