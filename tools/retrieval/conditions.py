"""Conditions on the images that may be retrieved: their license, tags and size.

The rows of an index that meet them are looked up once, and its vectors and captions are searched among these
rows alone. Where no image meets them, they are named with the values that images have.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pleinair.tools.retrieval.exact_search import Selection
from pleinair.tools.retrieval.licenses import admits
from pleinair.tools.types import BadInput, Value

if TYPE_CHECKING:
    from pleinair.tools.retrieval.catalogue import Catalogue

NEAREST = 3  # values of a condition that are suggested
_ALIKE = 0.6  # of difflib
_COMPARED = 20_000  # different tags, the most frequent ones
_PREFIX = "retrieval."  # of the settings


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
        return not self.tags or not set(_folded(self.tags)).isdisjoint(_folded(tags))

    def each(self) -> dict[str, Conditions]:
        """Return each condition that is set by itself, by its name."""
        every = {
            "licenses": Conditions(licenses=self.licenses),
            "tags": Conditions(tags=self.tags),
            "min_side": Conditions(min_side=self.min_side),
        }
        return {name: condition for name, condition in every.items() if condition}


class Unmet(Value):
    """Condition that keeps every image of a library from being retrieved, alone or with others."""

    setting: str  # such as "retrieval.tags"
    value: tuple[str, ...] | int
    images: int  # that meet this condition alone
    nearest: dict[str, int]  # values that images have, most alike first, or else most frequent; their images


class EmptySelection(BadInput):
    """No image of a library meets the conditions; `unmet` are those that stand in the way."""

    def __init__(self, images: int, unmet: tuple[Unmet, ...]) -> None:
        each = "; ".join(map(_sentence, unmet))
        together = " by itself, and none meets all of them" if all(cause.images for cause in unmet) else ""
        message = f"{each}{together}; the library has {images:,} images"
        super().__init__(message, "Correct a condition, or leave it out.", field=unmet[0].setting)
        self.unmet = unmet


def select(catalogue: Catalogue, conditions: Conditions) -> Selection | None:
    """Return the rows that meet the conditions, None if all do; raise `BadInput` if the file is damaged."""
    where, values = _where(catalogue, conditions)
    # as one text: a record for each row would take seven times as long
    ((rows,),) = catalogue.read(f"SELECT json_group_array(row) FROM items WHERE {where}", values)
    selected, count = json.loads(rows), int(catalogue.facts["usable"])
    return None if len(selected) == count else Selection(np.sort(np.array(selected, np.int64)), count)


def count_met(catalogue: Catalogue, conditions: Conditions) -> int:
    """Return how many images meet the conditions; sizes of a library that is not indexed are not known."""
    where, values = _where(catalogue, conditions)
    ((count,),) = catalogue.read(f"SELECT count(*) FROM items WHERE {where}", values)
    return int(count)


def count_usable(catalogue: Catalogue) -> int:
    """Return how many images can be retrieved, all files of a library that is not indexed."""
    return int(catalogue.facts["usable"]) or catalogue.count


def explain_empty(catalogue: Catalogue, conditions: Conditions) -> EmptySelection | None:
    """Return what keeps every image from being retrieved, None if an image meets the conditions."""
    where, values = _where(catalogue, conditions)
    if catalogue.read(f"SELECT 1 FROM items WHERE {where} LIMIT 1", values):
        return None
    unmet = [
        Unmet(
            setting=f"{_PREFIX}{name}",
            value=getattr(condition, name),
            images=count_met(catalogue, condition),
            nearest=_nearest(catalogue, condition),
        )
        for name, condition in conditions.each().items()
    ]
    causes = [cause for cause in unmet if not cause.images] or unmet
    return EmptySelection(count_usable(catalogue), tuple(causes))


def _where(catalogue: Catalogue, conditions: Conditions) -> tuple[str, list[object]]:
    clauses, values = [_usable(catalogue)], list[object]()
    if conditions.licenses:
        licenses = [name for (name,) in catalogue.read("SELECT DISTINCT license FROM items")]
        clauses.append("license IN (SELECT value FROM json_each(?))")
        values.append(json.dumps([name for name in licenses if admits(conditions.licenses, name)]))
    if conditions.min_side and catalogue.facts["usable"]:
        clauses.append("min(width, height) >= ?")
        values.append(conditions.min_side)
    if conditions.tags:
        wanted = "SELECT value FROM json_each(?)"
        clauses.append(
            f"tags != '' AND EXISTS (SELECT 1 FROM json_each(tags) WHERE casefold(value) IN ({wanted}))"
        )
        values.append(json.dumps(_folded(conditions.tags)))
    return " AND ".join(clauses), values


def _usable(catalogue: Catalogue) -> str:
    """Return the clause of images that can be retrieved; before a library is indexed that is not known."""
    return "row IS NOT NULL" if catalogue.facts["usable"] else "TRUE"


def _nearest(catalogue: Catalogue, condition: Conditions) -> dict[str, int]:
    """Return values that images have in place of those of one condition, with how many images each."""
    usable = _usable(catalogue)
    if condition.min_side:
        query = f"SELECT min(width, height), count(*) FROM items WHERE {usable} GROUP BY 1 ORDER BY 1 DESC"
        return {str(side): count for side, count in catalogue.read(f"{query} LIMIT 1")}
    if condition.tags:
        query = f"SELECT casefold(value), count(DISTINCT position) FROM items, json_each(tags) WHERE {usable}"
        counts: dict[str, int] = dict(catalogue.read(f"{query} AND tags != '' GROUP BY 1"))
        return _most_alike(condition.tags, counts)
    query = f"SELECT license, count(*) FROM items WHERE {usable} GROUP BY license"
    return _most_alike(condition.licenses, dict(catalogue.read(query)))


def _most_alike(values: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    frequent = [name for name, _ in Counter(counts).most_common(_COMPARED)]
    by_folded = {name.casefold(): name for name in frequent}
    alike = [
        by_folded[name]
        for value in _folded(values)
        for name in difflib.get_close_matches(value, by_folded, NEAREST, _ALIKE)
    ]
    return {name: counts[name] for name in list(dict.fromkeys(alike or frequent))[:NEAREST]}


def _sentence(cause: Unmet) -> str:
    name, value = cause.setting, list(cause.value) if isinstance(cause.value, tuple) else cause.value
    if cause.images:
        return f"{name} = {value!r}: met by {_images(cause.images)}"
    if not cause.nearest:
        return f"{name} = {value!r}: no image of the library has a tag"
    values = ", ".join(f"{name!r} ({_images(count)})" for name, count in cause.nearest.items())
    return f"{name} = {value!r}: met by no image; accepted, for example: {values}"


def _images(count: int) -> str:
    return f"{count:,} image" if count == 1 else f"{count:,} images"


def _folded(tags: Iterable[str]) -> list[str]:
    return [tag.casefold() for tag in tags]
