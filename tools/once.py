"""Make a thing at its first use, once, whichever thread asks first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Call `make` at the first call and give its result ever after; who calls meanwhile waits for it.

    Where `make` raises nothing is kept, and the next call tries again. It must not give None.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._made: T | None = None

    def __call__(self) -> T:
        """Give the thing."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made
