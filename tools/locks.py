"""Locks between threads: a value that is made once, and functions that run one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Generic, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


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


_TURN = threading.RLock()


def alone(build: Callable[P, T]) -> Callable[P, T]:
    """Let a function that builds models wait for every other one; it may call them itself."""

    @wraps(build)
    def building(*args: P.args, **kwargs: P.kwargs) -> T:
        with _TURN:
            return build(*args, **kwargs)

    return building
