"""Say which sub-queries a caption contains: Cross-modal RAG's sparse stage (Zhu et al. 2025, definition 3.1).

The paper leaves open what "contains" means. Here a caption contains a sub-query when the sub-query's words
stand in it, all of them, in their order and next to each other. A word is a run of letters and digits, with
its inner apostrophes; case (Unicode case folding), compatibility forms (NFKC) and punctuation make no
difference, and a leading article of the sub-query is left out. Words are not stemmed: "finches" is not
"finch". Not covered: synonyms, and languages written without spaces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import normalize

from pleinair.tools.types import BadInput

Vector = tuple[bool, ...]  # one flag a sub-query, in their order

ARTICLES = frozenset({"a", "an", "the"})
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def satisfaction(captions: Sequence[str], subqueries: Sequence[str]) -> list[Vector]:
    """Give each caption its satisfaction vector.

    Raises:
        BadInput: a sub-query without a word, which every caption would contain.
    """
    wanted = [needle(subquery) for subquery in subqueries]
    return [_vector(spelled(caption), wanted) for caption in captions]


def _vector(text: str, wanted: Sequence[str]) -> Vector:
    """Give the satisfaction vector of a text that `spelled` has made."""
    return tuple(words in text for words in wanted)


def needle(subquery: str) -> str:
    """Spell a sub-query without its leading article; raise `BadInput` when no word is left."""
    found = words(subquery)
    if len(found) > 1 and found[0] in ARTICLES:
        found = found[1:]
    if not found:
        raise BadInput(f"The sub-query {subquery!r} has no word to look for in captions.")
    return _padded(found)


def spelled(text: str) -> str:
    """Spell a text so that whole words are found by their blanks."""
    return _padded(words(text))


def _padded(found: Sequence[str]) -> str:
    """Join words with a blank before, between and after them."""
    return f" {' '.join(found)} "


def words(text: str) -> list[str]:
    """Split a text into its words as the match rule reads them."""
    return WORD.findall(normalize("NFKC", text).casefold().replace("’", "'"))


def kept(vectors: Sequence[Vector]) -> list[int]:
    """Give the places of the vectors that are not all zero: the library D becomes the smaller D̃."""
    return [row for row, flags in enumerate(vectors) if any(flags)]
