"""Crops of references: a reference is cut down to its concept, where the library has boxes of named things.

A generator that is shown two things takes from both, so a crop removes the others. Where nothing else has a
box, or the other thing would stay inside, the whole image is sent. A crop is as nearly square as the image
allows, as image encoders and small models see squares, unless that brings the other thing back. Names are
matched as in sparse retrieval: whole words, without case. Not covered: input images, which have no boxes, and
concepts that contain no name of a box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pleinair.tools.retrieval.crossmodal.sparse import padded_words
from pleinair.tools.types import Box, Value

if TYPE_CHECKING:
    from PIL.Image import Image

    Boxes = Mapping[str, Box]

_REMOVED = 0.5  # share of another thing's box that must be cut away, or it is still visible


class CropOptions(Value):
    """When a reference is cut down to its concept, and how closely."""

    when: Literal["never", "apart", "always"] = "apart"  # to crop; "apart": to remove another object
    margin: float = Field(default=0.1, ge=0, le=1)  # of the box's longer side, on every side
    least: int = Field(default=64, ge=1)  # pixels a side; for a smaller crop the whole image is sent


def choose_crop(
    concepts: Sequence[str], boxes: Boxes, size: tuple[int, int], options: CropOptions
) -> Box | None:
    """Choose the part of a reference that is sent; None is all of it.

    Args:
        concepts: what the reference is to show; the crop contains all of them.
        boxes: of named things in it.
        size: its width and height in pixels.
        options: when, and how closely.
    """
    matches = [own_names(concept, boxes) for concept in concepts]
    if options.when == "never" or not all(matches):
        return None
    names = {name for match in matches for name in match}
    others = [box for name, box in boxes.items() if name not in names]
    close = _widened(union([boxes[name] for name in names]), size, options.margin)
    square = _squared(close, size)
    crop = square if _count_removed(others, square) >= _count_removed(others, close) else close
    if options.when == "apart" and not _count_removed(others, crop):
        return None
    x0, y0, x1, y1 = pixels(crop, size)
    is_whole = (x0, y0, x1, y1) == (0, 0, *size)
    return crop if min(x1 - x0, y1 - y0) >= options.least and not is_whole else None


def _count_removed(others: Sequence[Box], crop: Box) -> int:
    return sum(_share_inside(box, crop) <= 1 - _REMOVED for box in others)


def own_names(concept: str, boxes: Boxes) -> list[str]:
    """List the names of boxes that a concept contains, less those that are part of a longer one."""
    text = padded_words(concept)
    spellings = {name: padded_words(name) for name in boxes}
    matches = {name: words for name, words in spellings.items() if words.strip() and words in text}
    return [
        name
        for name, words in matches.items()
        if not any(words != other and words in other for other in matches.values())
    ]


def is_box(box: Box) -> bool:
    """Return whether a box lies in the image and has an extent."""
    x0, y0, x1, y1 = box
    return 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1


def union(boxes: Sequence[Box]) -> Box:
    """Return the smallest box around at least one box."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _widened(box: Box, size: tuple[int, int], margin: float) -> Box:
    """Add a margin, a share of the longer side in pixels, on every side, within the image."""
    (x0, y0, x1, y1), (width, height) = box, size
    edge = margin * max((x1 - x0) * width, (y1 - y0) * height)
    x, y = edge / width, edge / height
    return max(0.0, x0 - x), max(0.0, y0 - y), min(1.0, x1 + x), min(1.0, y1 + y)


def within(box: Box, crop: Box | None) -> Box | None:
    """Return a box as fractions of a crop, as far as it lies in it; None where it does not."""
    x0, y0, x1, y1 = crop or (0.0, 0.0, 1.0, 1.0)
    near_x, far_x = ((min(max(edge, x0), x1) - x0) / (x1 - x0) for edge in (box[0], box[2]))
    near_y, far_y = ((min(max(edge, y0), y1) - y0) / (y1 - y0) for edge in (box[1], box[3]))
    return (near_x, near_y, far_x, far_y) if near_x < far_x and near_y < far_y else None


def _squared(crop: Box, size: tuple[int, int]) -> Box:
    """Extend the shorter side to the longer one at both ends alike, as far as the image goes."""
    (x0, y0, x1, y1), (width, height) = crop, size
    longer = max((x1 - x0) * width, (y1 - y0) * height)
    x0, x1 = _extended(x0, x1, min(longer / width, 1.0))
    y0, y1 = _extended(y0, y1, min(longer / height, 1.0))
    return x0, y0, x1, y1


def _extended(start: float, end: float, length: float) -> tuple[float, float]:
    if end - start >= length:
        return start, end
    first = min(max((start + end - length) / 2, 0.0), 1.0 - length)
    return first, first + length


def _share_inside(box: Box, crop: Box) -> float:
    """Return the share of a box's area, 0 to 1, that lies in a crop."""
    width = min(box[2], crop[2]) - max(box[0], crop[0])
    height = min(box[3], crop[3]) - max(box[1], crop[1])
    return max(width, 0.0) * max(height, 0.0) / ((box[2] - box[0]) * (box[3] - box[1]))


def pixels(crop: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a crop's edges in whole pixels: left, top, right, bottom."""
    x0, y0, x1, y1 = (round(edge * side) for edge, side in zip(crop, (*size, *size), strict=True))
    return x0, y0, x1, y1


def cut(image: Image, crop: Box | None) -> Image:
    """Return the part of an image inside a crop, or the image itself without one."""
    return image.crop(pixels(crop, image.size)) if crop else image
