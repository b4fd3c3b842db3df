"""Handlers of signals that hold for a block."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def handling(signals: tuple[signal.Signals, ...], handler: Callable[..., object]) -> Iterator[None]:
    """Call `handler` at each of the signals, in the main thread, until the block ends."""
    before = {kind: signal.signal(kind, handler) for kind in signals}
    try:
        yield
    finally:
        for kind, earlier in before.items():
            signal.signal(kind, earlier)
