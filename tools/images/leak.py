"""Tell how much of a reference came across besides its concept: background, pose, or the whole picture.

All three are likenesses from 0 to 1 of small pictures in CIE Lab, and none needs a model. `background` asks
how much of the difference there was without the reference has gone, so that what the prompt asks for is no
leak: with b the distance of the nearest picture drawn without it and d that of the new one, cell by cell, it
is Σ max(b - d, 0) / Σ b. `copied` is the correlation of the pixels, and `pose` that of the concept's edges,
both also with the mirror image. Not covered: a pose that was asked for, a background that moved, and style.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pleinair.tools.images.crops import pixels
from pleinair.tools.types import BadInput, Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    Bits = NDArray[np.bool_]

GRID = 8  # cells a side of a background's layout
THUMB = 16  # pixels a side of a whole picture
CUT = 24  # pixels a side of a concept
LARGEST = 256  # pixels a side that are looked at; more only cost time
NOISE = 10.0  # mean distance in Lab; backgrounds this near to each other tell nothing apart
TO_XYZ = np.array(((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)))
WHITE = np.array((0.9505, 1.0, 1.089))  # D65


@dataclass(frozen=True, slots=True)
class View:
    """Hold a picture with the concept's box in it and those of other things, as far as they are known.

    Raises `BadInput` for a box that is none.
    """

    image: Image.Image
    own: Box | None = None
    others: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        for box in (*self.others, *([self.own] if self.own else [])):
            if not is_box(box):
                raise BadInput(
                    f"box {box}: wanted x0, y0, x1, y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1"
                )


def shrunk(image: Image.Image) -> Image.Image:
    """Give a picture small enough to be compared quickly; a small one is left as it is."""
    factor = max(image.size) // LARGEST
    return image.reduce(factor) if factor > 1 else image


def is_box(box: Box) -> bool:
    """Tell whether a box lies in a picture and holds something."""
    x0, y0, x1, y1 = box
    return 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1


def background(new: View, reference: View, without: Sequence[Image.Image]) -> float | None:
    """Give how much of the reference's background came across; None where that cannot be told.

    It cannot without a picture drawn without the reference, or where things fill a picture. Where the
    concept's box is unknown, it is taken to stand in the middle, and the outer ring of cells is compared.
    """
    free = _cells(new) & _cells(reference)
    if not without or not free.any():
        return None
    layout = _to_lab(reference.image, GRID)
    before = np.min([_distance(_to_lab(one, GRID), layout) for one in without], axis=0)[free]
    gone = np.clip(before - _distance(_to_lab(new.image, GRID), layout)[free], 0, None)
    return float(gone.sum() / max(before.sum(), NOISE * before.size))


def copied(new: Image.Image, reference: Image.Image) -> float:
    """Give the likeness of two whole pictures, or of one and the other's mirror image; 1 is the same."""
    here, there = _to_lab(new, THUMB), _to_lab(reference, THUMB)
    return max(_correlation(one, there) for one in (here, here[:, ::-1]))


def pose(new: View, reference: View) -> float | None:
    """Give the likeness of a concept's edges in two pictures, mirrored or not; None without both boxes."""
    if new.own is None or reference.own is None:
        return None
    here, there = (_to_lab(one.image.crop(_around(one)), CUT) for one in (new, reference))
    return max(_correlation(_edges(one), _edges(there)) for one in (here, here[:, ::-1]))


def _cells(view: View) -> Bits:
    """Mark the cells of the layout, [8, 8], that nothing stands in."""
    free = np.ones((GRID, GRID), dtype=np.bool_)
    if view.own is None:
        free[1:-1, 1:-1] = False
    for x0, y0, x1, y1 in (*view.others, *([view.own] if view.own else [])):
        columns = slice(int(np.floor(x0 * GRID)), int(np.ceil(x1 * GRID)))
        free[int(np.floor(y0 * GRID)) : int(np.ceil(y1 * GRID)), columns] = False
    return free


def _around(view: View) -> tuple[int, int, int, int]:
    """Give the concept's box in whole pixels, at least one a side."""
    assert view.own is not None
    left, top, right, bottom = pixels(view.own, view.image.size)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _to_lab(image: Image.Image, side: int) -> Numbers:
    """Shrink a picture to a square and give it in CIE Lab (sRGB, D65), [side, side, 3]."""
    small = image.convert("RGB").resize((side, side), Image.Resampling.BOX)
    red_green_blue = np.asarray(small, dtype=np.float64) / 255
    linear = np.where(
        red_green_blue <= 0.04045, red_green_blue / 12.92, ((red_green_blue + 0.055) / 1.055) ** 2.4
    )
    xyz = linear @ TO_XYZ.T / WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=-1)


def _edges(lab: Numbers) -> Numbers:
    """Give how fast a small picture changes downwards and to the right, [23, 23, 2]."""
    down, right = np.diff(lab, axis=0)[:, :-1], np.diff(lab, axis=1)[:-1]
    return np.stack((np.linalg.norm(down, axis=-1), np.linalg.norm(right, axis=-1)), axis=-1)


def _distance(one: Numbers, other: Numbers) -> Numbers:
    """Give the distance in Lab, pixel by pixel."""
    return np.asarray(np.linalg.norm(one - other, axis=-1))


def _correlation(one: Numbers, other: Numbers) -> float:
    """Correlate two pictures channel by channel, each less its mean; 0 for opposites and for flat ones."""
    one, other = one - one.mean((0, 1)), other - other.mean((0, 1))
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float(np.clip((one * other).sum() / scale, 0, 1)) if scale > 1e-6 else 0.0
