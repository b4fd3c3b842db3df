"""What several machines share, and cannot be reached now."""

from __future__ import annotations

from pleinair.tools.types import PleinairError


class Away(PleinairError):
    """A database or storage gives no answer: no fault of a run, which goes on once it is back."""
