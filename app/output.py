"""What is shown of a run while it goes on."""

from __future__ import annotations

from collections.abc import Callable

from pleinair.tools.types import Value

OnPreview = Callable[[bytes], None]  # told a small PNG of what is being drawn


class OutputOptions(Value):
    """Say whether previews are made when somebody watches; they are kept nowhere."""

    previews: bool = True
