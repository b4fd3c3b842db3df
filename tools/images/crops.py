"""Cut a reference down to its concept, where the library says where in the picture that stands.

A crop is made to set a concept apart: a generator that is shown two things takes from both. Where nothing
else is named, or the other thing would stay inside, the whole picture is sent, as a crop then only changes
its scale. A crop is as nearly square as the picture allows, as image encoders and small models see squares,
unless that brings the other thing back. Names are read as the sparse stage reads captions: whole words,
without case. Not covered: the user's own pictures, which have no boxes, and concepts that no name stands in.
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

GONE = 0.5  # of another thing's box must be cut away, or it is still to be seen


class CropOptions(Value):
    """Say when a reference is cut down to its concept, and how closely."""

    when: Literal["never", "apart", "always"] = "apart"  # apart: to remove another thing that has a box
    margin: float = Field(default=0.1, ge=0, le=1)  # of the box's longer side, on every side
    least: int = Field(default=64, ge=1)  # pixels a side; for a smaller crop the whole picture is sent


def choose_crop(
    concepts: Sequence[str], boxes: Boxes, size: tuple[int, int], options: CropOptions
) -> Box | None:
    """Choose the part of a reference that is sent; None is all of it.

    Args:
        concepts: what the reference is to show; the crop holds all of them.
        boxes: where named things stand in it.
        size: its width and height in pixels.
        options: when, and how closely.
    """
    found = [own_names(concept, boxes) for concept in concepts]
    if options.when == "never" or not all(found):
        return None
    own = {name for names in found for name in names}
    others = [box for name, box in boxes.items() if name not in own]
    close = _widened(union([boxes[name] for name in own]), size, options.margin)
    square = _squared(close, size)
    crop = square if _cut_away(others, square) >= _cut_away(others, close) else close
    if options.when == "apart" and not _cut_away(others, crop):
        return None
    left, top, right, bottom = pixels(crop, size)
    return crop if min(right - left, bottom - top) >= options.least else None


def _cut_away(others: Sequence[Box], crop: Box) -> int:
    """Count the boxes that a crop removes."""
    return sum(_share_inside(box, crop) <= 1 - GONE for box in others)


def own_names(concept: str, boxes: Boxes) -> list[str]:
    """List the names of boxes that stand in a concept's name, less those that stand in a longer one."""
    text = padded_words(concept)
    known = {name: padded_words(name) for name in boxes}
    found = {name: words for name, words in known.items() if words.strip() and words in text}
    return [
        name
        for name, words in found.items()
        if not any(words != other and words in other for other in found.values())
    ]


def union(boxes: Sequence[Box]) -> Box:
    """Give the smallest box around at least one box."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _widened(box: Box, size: tuple[int, int], margin: float) -> Box:
    """Add a margin, a share of the longer side in pixels, on every side, within the picture."""
    (x0, y0, x1, y1), (width, height) = box, size
    edge = margin * max((x1 - x0) * width, (y1 - y0) * height)
    x, y = edge / width, edge / height
    return max(0.0, x0 - x), max(0.0, y0 - y), min(1.0, x1 + x), min(1.0, y1 + y)


def within(box: Box, crop: Box | None) -> Box | None:
    """Give a box as fractions of a crop, as far as it lies in it; None where it does not."""
    x0, y0, x1, y1 = crop or (0.0, 0.0, 1.0, 1.0)
    left, right = ((min(max(edge, x0), x1) - x0) / (x1 - x0) for edge in (box[0], box[2]))
    top, bottom = ((min(max(edge, y0), y1) - y0) / (y1 - y0) for edge in (box[1], box[3]))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _squared(crop: Box, size: tuple[int, int]) -> Box:
    """Let the shorter side grow to the longer one on both ends alike, as far as the picture goes."""
    (x0, y0, x1, y1), (width, height) = crop, size
    longer = max((x1 - x0) * width, (y1 - y0) * height)
    left, right = _grown(x0, x1, min(longer / width, 1.0))
    top, bottom = _grown(y0, y1, min(longer / height, 1.0))
    return left, top, right, bottom


def _grown(start: float, end: float, length: float) -> tuple[float, float]:
    """Let a span in 0..1 grow to a length, and stay within."""
    if end - start >= length:
        return start, end
    first = min(max((start + end - length) / 2, 0.0), 1.0 - length)
    return first, first + length


def _share_inside(box: Box, crop: Box) -> float:
    """Give the share of a box's area, 0 to 1, that lies in a crop."""
    width = min(box[2], crop[2]) - max(box[0], crop[0])
    height = min(box[3], crop[3]) - max(box[1], crop[1])
    return max(width, 0.0) * max(height, 0.0) / ((box[2] - box[0]) * (box[3] - box[1]))


def pixels(crop: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Give a crop's edges in whole pixels: left, top, right, bottom."""
    width, height = size
    return (
        round(crop[0] * width),
        round(crop[1] * height),
        round(crop[2] * width),
        round(crop[3] * height),
    )


def cut(image: Image, crop: Box | None) -> Image:
    """Give the part of a picture that a crop names, or all of it."""
    return image.crop(pixels(crop, image.size)) if crop else image
