"""Text of others on a terminal: captions, prompts and answers must not steer it."""

from __future__ import annotations

import json


def printable(text: str) -> str:
    """Put a text on one line and replace what a terminal would obey instead of show."""
    return "".join(char if char.isprintable() else "�" for char in " ".join(text.split()))


def printable_json(value: object) -> str:
    """Write JSON on one line; what a terminal would obey is escaped, so the value read back is the same."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
