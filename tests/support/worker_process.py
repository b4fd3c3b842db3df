"""Helpers for tests of the worker: one image, and whether its process runs."""

import os

from support.generator_requests import make_request

from pleinair.tools.callbacks import no_callback
from pleinair.tools.worker.worker import Worker


def generate(worker: Worker, prompt: str) -> None:
    """Generate an image and discard it."""
    worker.generate(make_request(prompt=prompt), (), no_callback)


def is_running(pid: int) -> bool:
    """Return whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def running(worker: Worker) -> int:
    """Return the process's id; start it if the test before has ended it."""
    if worker.pid is None:
        generate(worker, "a first image")
    assert worker.pid is not None
    return worker.pid
