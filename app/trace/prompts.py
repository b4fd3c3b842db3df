"""Differences between two texts, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

_WORDS = re.compile(r"\S+\s*|\s+")


class Piece(NamedTuple):
    """Part of a text that stays, or that only one of two texts has."""

    kind: Literal["same", "del", "ins"]
    text: str


def word_changes(before: str, after: str) -> list[Piece]:
    """Return the words of two texts in order; without the "del" pieces they are `after`."""
    first, second = _WORDS.findall(before), _WORDS.findall(after)
    matcher = SequenceMatcher(
        None, [word.strip() for word in first], [word.strip() for word in second], False
    )
    pieces: list[Piece] = []
    for operation, start, end, begin, stop in matcher.get_opcodes():
        if operation == "equal":
            pieces.append(Piece("same", "".join(second[begin:stop])))
            continue
        if end > start:
            pieces.append(Piece("del", "".join(first[start:end])))
        if stop > begin:
            pieces.append(Piece("ins", "".join(second[begin:stop])))
    return pieces
