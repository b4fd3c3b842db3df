"""Step callbacks: what a generator may call beside `OnStep`, and the callback that does nothing.

Both methods are optional: a plain function is called at the steps only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pleinair.tools.types import Cancelled

if TYPE_CHECKING:
    from PIL.Image import Image


@runtime_checkable
class PreviewCallback(Protocol):
    """Step callback that also receives previews: small RGB images. Both methods may raise to stop."""

    def __call__(self, done: int, total: int, /) -> None:
        """Receive the number of steps done and the total."""

    def show(self, preview: Image) -> None:
        """Receive a preview."""


@runtime_checkable
class StopCallback(Protocol):
    """Step callback that can also be asked to stop before the first step and between two steps."""

    def __call__(self, done: int, total: int, /) -> None:
        """Receive the number of steps done and the total; may raise to stop."""

    def check(self) -> None:
        """Raise what a step would raise if generation is to stop; no step is counted."""


class Stop:
    """Flag that ends a run at its next step, or that of a run around it; set when nobody waits for it."""

    def __init__(self, parent: Stop | None = None) -> None:
        self._event, self._parent = Event(), parent

    def set(self) -> None:
        """Ask the run to stop."""
        self._event.set()

    def check(self) -> None:
        """Raise `Cancelled` if the run is to stop."""
        if self._event.is_set():
            raise Cancelled("The caller of the run has ended it.")
        if self._parent:
            self._parent.check()


class StopCheck:
    """`StopCallback` that ignores the steps and runs `check`, which raises to stop."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check

    def __call__(self, done: int, total: int) -> None:
        """Run the check at a step."""
        self.check()


def no_callback(*_: object) -> None:
    """Do nothing: the default callback."""


def stop_check(on_step: Callable[[int, int], None]) -> Callable[[], None]:
    """Return the `check` of a `StopCallback`, and `no_callback` for a plain function."""
    return on_step.check if isinstance(on_step, StopCallback) else no_callback


@runtime_checkable
class ReportsOffloadLevels(Protocol):
    """Generator that lists the offload levels it has tried."""

    @property
    def offload_levels(self) -> Sequence[str]:
        """List the levels in the order in which they were tried; the last one generated the image."""
