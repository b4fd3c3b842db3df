"""Rows of an earlier critique that hold for a new image, because it has the same pixels there.

That an area has not changed is read from the pixels, never from what was asked of the generator. Rows about
a newly generated image are never taken over. Not covered: a concept that is only right in relation to what
was painted elsewhere, such as a number of things.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pleinair.agent import ledger
from pleinair.tools.critique import area_of
from pleinair.tools.types import Attempt, Row

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.storage.artifacts import ArtifactStore


def unchanged_rows(newest: Attempt, attempts: Sequence[Attempt], store: ArtifactStore) -> dict[str, Row]:
    """Return by their concepts the rows of an earlier attempt that hold for the newest one.

    Of the same image these are all rows but the unsure ones; of an image in which one box was inpainted,
    those of present concepts with a box whose pixels, with a margin, are the same as before.
    """
    judged = [attempt for attempt in reversed(attempts) if attempt.ledger]
    same = next((attempt for attempt in judged if attempt.picture == newest.picture), None)
    if same:
        return _taken_over(row for row in ledger.rows_of(same) if row.status != "unsure")
    inpaint = newest.request.inpaint
    base = next((attempt for attempt in judged if inpaint and attempt.picture == inpaint.picture), None)
    if base is None:
        return {}
    before, after = store.open(base.picture), store.open(newest.picture)
    return _taken_over(row for row in ledger.rows_of(base) if _is_unchanged(row, before, after))


def _is_unchanged(row: Row, before: Image, after: Image) -> bool:
    if row.status != "present" or row.box is None or before.size != after.size:
        return False
    area = area_of(row, before.size)
    is_empty = area[0] >= area[2] or area[1] >= area[3]
    return not is_empty and before.crop(area).tobytes() == after.crop(area).tobytes()


def _taken_over(rows: Iterable[Row]) -> dict[str, Row]:
    return {row.concept: row.model_copy(update={"basis": "unchanged"}) for row in rows}
