"""The one place that workers take turns in, so that no two have a process and a model on the GPU at once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from pleinair.tools.worker_child import PAUSE


def vacant() -> None:
    """Name nobody."""


class Sitter(Protocol):
    """Have a process, and end it when another is to have one."""

    def leave(self) -> None:
        """End the process, which draws nothing now."""


class Seat:
    """Let one worker at a time have a process.

    Who comes while a picture is drawn waits for it; who comes after another worker ends that one's process
    first. Not covered: other programs with models on the same device, and an order of waiting.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._holder: Callable[[], Sitter | None] = vacant

    @contextmanager
    def taken(self, sitter: Sitter, check: Callable[[], None]) -> Iterator[None]:
        """Hold the place; while another holds it, `check` is asked now and then, and may raise."""
        while not self.lock.acquire(timeout=PAUSE):
            check()
        try:
            before = self._holder()
            if before is not None and before is not sitter:
                before.leave()
            self._holder = weakref.ref(sitter)
            yield
        finally:
            self.lock.release()
