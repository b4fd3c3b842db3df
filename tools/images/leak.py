"""Leaks of a reference: background, pose or the whole image came across besides its concept.

All three are similarities from 0 to 1 of small images in CIE Lab, and none needs a model. `background` is the
share of the difference to the reference that is gone, so that a background the prompt asks for is no leak:
with b the distance of the nearest image generated without the reference and d that of the new one, cell by
cell, it is Σ max(b - d, 0) / Σ b. `copied` is the correlation of the pixels, and `pose` that of the concept's
edges, both also with the mirror image. Not covered: a pose that was asked for, a background that moved, and
style.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pleinair.tools.images.crops import is_box, pixels
from pleinair.tools.types import BadInput, Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    Bits = NDArray[np.bool_]

GRID = 8  # cells a side of a background's layout
THUMB = 16  # pixels a side of a whole image
LARGEST = 256  # pixels a side that are compared; more only cost time
_CONCEPT_SIDE = 24  # pixels
_NOISE = 10.0  # mean distance in Lab below which two backgrounds cannot be told apart
_TO_XYZ = np.array(((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)))
_WHITE = np.array((0.9505, 1.0, 1.089))  # D65


@dataclass(frozen=True, slots=True)
class View:
    """Image with the box of its concept and those of other things, as far as they are known.

    Raise `BadInput` for a box that is none.
    """

    image: Image.Image
    box: Box | None = None
    others: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        for box in self.boxes:
            if not is_box(box):
                raise BadInput(
                    f"box {box}: wanted x0, y0, x1, y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1"
                )

    @property
    def boxes(self) -> tuple[Box, ...]:
        """All boxes, that of the concept last."""
        return (*self.others, self.box) if self.box else self.others


def shrunk(image: Image.Image) -> Image.Image:
    """Return an image small enough to be compared quickly; a small one is returned as it is."""
    factor = max(image.size) // LARGEST
    return image.reduce(factor) if factor > 1 else image


def background(generated: View, reference: View, without: Sequence[Image.Image]) -> float | None:
    """Return how much of the reference's background came across.

    None without an image generated without the reference, and where things fill an image. Where the concept's
    box is unknown, it is taken to stand in the middle, and the outer ring of cells is compared.
    """
    free = _free_cells(generated) & _free_cells(reference)
    if not without or not free.any():
        return None
    layout = _to_lab(reference.image, GRID)
    before = np.min([_distance(_to_lab(image, GRID), layout) for image in without], axis=0)[free]
    gone = np.clip(before - _distance(_to_lab(generated.image, GRID), layout)[free], 0, None)
    return float(gone.sum() / max(before.sum(), _NOISE * before.size))


def copied(generated: Image.Image, reference: Image.Image) -> float:
    """Return the similarity of two whole images, or of one and the other's mirror image; 1 is the same."""
    first, second = _to_lab(generated, THUMB), _to_lab(reference, THUMB)
    return max(_correlation(first, second), _correlation(first[:, ::-1], second))


def pose(generated: View, reference: View) -> float | None:
    """Return the similarity of the concept's edges, mirrored or not; None without both boxes."""
    if generated.box is None or reference.box is None:
        return None
    first, second = (
        _to_lab(view.image.crop(_around(view)), _CONCEPT_SIDE) for view in (generated, reference)
    )
    return max(_correlation(_edges(lab), _edges(second)) for lab in (first, first[:, ::-1]))


def _free_cells(view: View) -> Bits:
    """Mark the cells of the layout, [8, 8], that nothing stands in."""
    free = np.ones((GRID, GRID), dtype=np.bool_)
    if view.box is None:
        free[1:-1, 1:-1] = False
    for x0, y0, x1, y1 in view.boxes:
        columns = slice(int(np.floor(x0 * GRID)), int(np.ceil(x1 * GRID)))
        free[int(np.floor(y0 * GRID)) : int(np.ceil(y1 * GRID)), columns] = False
    return free


def _around(view: View) -> tuple[int, int, int, int]:
    """Return the concept's box in whole pixels, at least one a side."""
    assert view.box is not None
    x0, y0, x1, y1 = pixels(view.box, view.image.size)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _to_lab(image: Image.Image, side: int) -> Numbers:
    """Shrink an image to a square and convert it to CIE Lab (sRGB, D65), [side, side, 3]."""
    small = image.convert("RGB").resize((side, side), Image.Resampling.BOX)
    red_green_blue = np.asarray(small, dtype=np.float64) / 255
    linear = np.where(
        red_green_blue <= 0.04045, red_green_blue / 12.92, ((red_green_blue + 0.055) / 1.055) ** 2.4
    )
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=-1)


def _edges(lab: Numbers) -> Numbers:
    """Compute how fast a small image changes downwards and to the right, [23, 23, 2]."""
    down, right = np.diff(lab, axis=0)[:, :-1], np.diff(lab, axis=1)[:-1]
    return np.stack((np.linalg.norm(down, axis=-1), np.linalg.norm(right, axis=-1)), axis=-1)


def _distance(first: Numbers, second: Numbers) -> Numbers:
    return np.asarray(np.linalg.norm(first - second, axis=-1))


def _correlation(first: Numbers, second: Numbers) -> float:
    """Correlate two images channel by channel, each less its mean; 0 for opposites and for flat ones."""
    first, second = first - first.mean((0, 1)), second - second.mean((0, 1))
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float(np.clip((first * second).sum() / scale, 0, 1)) if scale > 1e-6 else 0.0
