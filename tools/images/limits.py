"""Default limits of image files."""

from __future__ import annotations

MAX_PIXELS = 50_000_000  # of a file that is decoded in one piece
