"""Locks between threads: a value that is built once, and functions that run one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Generic, ParamSpec, TypeVar

from pleinair.tools.deadline import holding

T = TypeVar("T")
P = ParamSpec("P")


class Once(Generic[T]):
    """Lazily built value: the first call runs `build`, other threads wait, later calls return its result.

    If `build` raises, nothing is stored and the next call tries again. It must not return None. A run's
    deadline ends the wait with `OutOfTime`.
    """

    def __init__(self, build: Callable[[], T]) -> None:
        self._build, self._lock = build, threading.Lock()
        self._value: T | None = None

    def __call__(self) -> T:
        """Return the value, built if necessary."""
        with holding(self._lock):
            if self._value is None:
                self._value = self._build()
            return self._value

    @property
    def is_built(self) -> bool:
        """Return whether the value is there."""
        return self._value is not None


_BUILDING = threading.RLock()


def serialized(build: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that builds models so that one such function runs at a time; calls may nest."""

    @wraps(build)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        with holding(_BUILDING):
            return build(*args, **kwargs)

    return wrapper
