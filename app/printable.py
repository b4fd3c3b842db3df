"""Text of others on a terminal: captions, prompts and answers must not steer it."""

from __future__ import annotations


def printable(text: str) -> str:
    """Put a text on one line and replace what a terminal would obey instead of show."""
    return "".join(char if char.isprintable() else "�" for char in " ".join(text.split()))
