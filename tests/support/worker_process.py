"""What tests of the worker ask of it: one picture, and whether its process lives."""

import os

from support.generator_requests import make_request

from pleinair.tools.callbacks import no_callback
from pleinair.tools.worker.worker import Worker


def ask(worker: Worker, prompt: str) -> None:
    """Draw a picture that nobody looks at."""
    worker.generate(make_request(prompt=prompt), (), no_callback)


def is_running(pid: int) -> bool:
    """Tell whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def running(worker: Worker) -> int:
    """Give the process's id; start it if the test before has ended it."""
    if worker.pid is None:
        ask(worker, "a first one")
    assert worker.pid is not None
    return worker.pid
