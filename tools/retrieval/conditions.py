"""Conditions on the images that may be retrieved: their license, tags and size.

The rows of an index that meet them are looked up once, and its vectors and captions are searched among these
rows alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pleinair.tools.retrieval.exact_search import Selection
from pleinair.tools.retrieval.licenses import admits

if TYPE_CHECKING:
    from pleinair.tools.retrieval.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions that an image has to meet, all of them; the empty ones are met by any.

    `licenses` are those of `admits`; of `tags` it needs one, in any case; `min_side` is that of its shorter
    side, in pixels.
    """

    licenses: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    min_side: int = 0

    def __bool__(self) -> bool:
        return bool(self.licenses or self.tags or self.min_side)

    def meets_tags(self, tags: Iterable[str]) -> bool:
        """Return whether an image with these tags meets the condition on tags."""
        return not self.tags or not _folded(self.tags).isdisjoint(_folded(tags))


def select(catalogue: Catalogue, conditions: Conditions) -> Selection | None:
    """Return the rows that meet the conditions, None if all do; raise `BadInput` if the file is damaged."""
    clauses, values = ["row IS NOT NULL"], list[object]()
    if conditions.licenses:
        licenses = [name for (name,) in catalogue.read("SELECT DISTINCT license FROM items")]
        clauses.append("license IN (SELECT value FROM json_each(?))")
        values.append(json.dumps([name for name in licenses if admits(conditions.licenses, name)]))
    if conditions.min_side:
        clauses.append("min(width, height) >= ?")
        values.append(conditions.min_side)
    where = " AND ".join(clauses)
    if conditions.tags:
        records = catalogue.read(f"SELECT row, tags FROM items WHERE {where} AND tags != ''", values)
        rows = [row for row, tags in records if conditions.meets_tags(json.loads(tags))]
    else:  # as one text: a record for each row would take seven times as long
        rows = json.loads(
            catalogue.read(f"SELECT json_group_array(row) FROM items WHERE {where}", values)[0][0]
        )
    count = int(catalogue.facts["usable"])
    return None if len(rows) == count else Selection(np.sort(np.array(rows, np.int64)), count)


def _folded(tags: Iterable[str]) -> set[str]:
    return {tag.casefold() for tag in tags}
