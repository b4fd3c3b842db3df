"""Build one model at a time, whichever thread asks.

While diffusers and transformers load a model they change torch for the whole process: what another thread
builds meanwhile gets weights without data. Nor do their modules, which are imported when a class is first
asked for, bear two threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_TURN = threading.RLock()


def alone(build: Callable[P, T]) -> Callable[P, T]:
    """Let a function that builds models wait for every other one; it may call them itself."""

    @wraps(build)
    def building(*args: P.args, **kwargs: P.kwargs) -> T:
        with _TURN:
            return build(*args, **kwargs)

    return building
