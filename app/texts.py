"""Texts for people in any interface: on one line, without control characters, with a number and its noun."""

from __future__ import annotations

import json


def printable(text: str) -> str:
    """Return a text on one line, with control characters replaced."""
    return "".join(char if char.isprintable() else "�" for char in " ".join(text.split()))


def short_caption(caption: str) -> str:
    """Return the first of an image's captions, which are one a line, and how many more there are."""
    first, *others = caption.split("\n")
    return f"{first} (+{counted(len(others), 'caption')})" if others else first


def printable_json(value: object) -> str:
    """Return JSON on one line with control characters escaped; it parses to the same value."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def is_utf8(text: str) -> bool:
    """Return whether a text can be written as UTF-8; bytes that could not be read make it unwritable."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def counted(count: int, noun: str) -> str:
    """Return a number and its noun, in the plural unless the number is 1."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
