"""Shapes painted on a canvas, with antialiasing by supersampling."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from pleinair.tools.pocket.catalogue.drawings.geometry import Points, Shape
from pleinair.tools.pocket.catalogue.drawings.palette import RGB, rgb


def paint(canvas: Image.Image, shapes: Iterable[Shape], place: tuple[float, float], scale: float) -> None:
    """Paint shapes of the unit square on a canvas; `place` and `scale` are pixels."""
    draw = ImageDraw.Draw(canvas)
    offset = np.array(place)
    for shape in shapes:
        points = shape.points * scale + offset
        if shape.clip is None:
            draw.polygon(points.ravel().tolist(), fill=rgb(shape.colour))
        else:
            _paint_clipped(canvas, points, shape.clip * scale + offset, rgb(shape.colour))


def _paint_clipped(canvas: Image.Image, points: Points, clip: Points, colour: RGB) -> None:
    low = np.floor(np.maximum(points.min(axis=0), clip.min(axis=0))).astype(int)
    high = np.ceil(np.minimum(points.max(axis=0), clip.max(axis=0))).astype(int) + 1
    width, height = (int(side) for side in high - low)
    if min(width, height) < 1:
        return
    masks = []
    for outline in (points, clip):
        mask = Image.new("L", (width, height), 0)
        ImageDraw.Draw(mask).polygon((outline - low).ravel().tolist(), fill=255)
        masks.append(mask)
    canvas.paste(colour, (int(low[0]), int(low[1])), ImageChops.darker(*masks))
