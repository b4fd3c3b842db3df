"""What a caller may learn of a picture beside its steps, and when he may stop it.

How it looks on the way, where its model stands, a question between two steps: all are offered, never owed.
A plain function is told the steps only, and many engines place nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image


@runtime_checkable
class Viewer(Protocol):
    """Be told the steps as any `OnStep` is, and now and then be shown a small RGB picture; both may raise."""

    def __call__(self, done: int, total: int, /) -> None:
        """Be told the steps done and the steps in all."""

    def show(self, preview: Image) -> None:
        """Be shown a preview."""


@runtime_checkable
class Stopper(Protocol):
    """Be told the steps as any `OnStep` is, and be asked between two, or before all, whether to stop."""

    def __call__(self, done: int, total: int, /) -> None:
        """Be told the steps done and the steps in all."""

    def check(self) -> None:
        """Raise, as at a step, where the picture is to stop; no step is done by it."""


class Check:
    """Take every step for no more than an occasion to ask whether to stop; `check` raises then."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check

    def __call__(self, done: int, total: int) -> None:
        """Ask at a step."""
        self.check()


def check_of(on_step: Callable[[int, int], None]) -> Callable[[], None]:
    """Give what asks whether to stop; a plain function is asked at its steps only."""
    return on_step.check if isinstance(on_step, Stopper) else go_on


def go_on() -> None:
    """Ask nobody."""


@runtime_checkable
class Placed(Protocol):
    """Tell the ways of placing the model that were tried, the one that drew last."""

    @property
    def offload_levels(self) -> Sequence[str]:
        """List them in the order in which they were tried."""
