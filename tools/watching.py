"""What a caller may learn of a picture beside its steps: how it looks on the way, and where its model stands.

Both are offered, never owed: a plain function is told the steps only, and many engines place nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
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
class Placed(Protocol):
    """Tell the ways of placing the model that were tried, the one that drew last."""

    @property
    def rungs(self) -> Sequence[str]:
        """List them in the order in which they were tried."""
