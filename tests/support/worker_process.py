"""Helpers for tests of the worker process."""

import os

from support.generator_requests import make_request

from pleinair.tools.callbacks import no_callback
from pleinair.tools.worker.worker import GeneratorWorker


def generate(worker: GeneratorWorker, prompt: str) -> None:
    """Generate an image and discard it."""
    worker.generate(make_request(prompt=prompt), (), no_callback)


def is_running(pid: int) -> bool:
    """Return whether the process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def running(worker: GeneratorWorker) -> int:
    """Return the process id; start the process if an earlier test has ended it."""
    if worker.pid is None:
        generate(worker, "a first image")
    assert worker.pid is not None
    return worker.pid
