"""Match sub-queries with captions: Cross-modal RAG's sparse stage (Zhu et al. 2025, definition 3.1).

The paper does not define "contains". Here a caption contains a sub-query if the sub-query's words are in it,
all of them, in their order and next to each other, in one line: an image's several captions are lines. A word
is a run of letters and digits, with its inner apostrophes; case (Unicode case folding), compatibility forms
(NFKC) and punctuation make no difference, and a leading article of the sub-query is ignored. Words are not
stemmed: "finches" is not "finch". Not covered: synonyms, and languages written without spaces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import normalize

from pleinair.tools.types import BadInput

Vector = tuple[bool, ...]  # one flag a sub-query, in their order

_ARTICLES = frozenset({"a", "an", "the"})
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def satisfaction(captions: Sequence[str], subqueries: Sequence[str]) -> list[Vector]:
    """Return the satisfaction vector of each caption; raise `BadInput` for a sub-query without a word."""
    needles = [needle(subquery) for subquery in subqueries]
    return [tuple(words in text for words in needles) for text in map(_padded_lines, captions)]


def _padded_lines(caption: str) -> str:
    """Return the padded words of each line, so that no needle matches across two lines."""
    return "\n".join(map(padded_words, caption.splitlines()))


def needle(subquery: str) -> str:
    """Return the padded words of a sub-query without its leading article; raise `BadInput` if it has none."""
    parts = words(subquery)
    if len(parts) > 1 and parts[0] in _ARTICLES:
        parts = parts[1:]
    if not parts:
        raise BadInput(f"The sub-query {subquery!r} has no word to look for in captions.")
    return _pad(parts)


def padded_words(text: str) -> str:
    """Return the words of a text with a blank before, between and after them, so that whole words match."""
    return _pad(words(text))


def words(text: str) -> list[str]:
    """Split a text into its words as the match rule reads them."""
    return _WORD.findall(normalize("NFKC", text).casefold().replace("’", "'"))


def _pad(parts: Sequence[str]) -> str:
    return f" {' '.join(parts)} "
