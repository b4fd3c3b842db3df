"""Six backgrounds: a pale gradient, for most of them a ground, and a few details."""

import random
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
GRADIENTS: dict[str, tuple[RGB, RGB]] = {
    "sky": ((150, 200, 245), (215, 236, 252)),
    "snow": ((186, 200, 224), (210, 219, 235)),
    "night": ((58, 64, 118), (90, 94, 152)),
    "meadow": ((214, 238, 222), (236, 246, 226)),
    "desert": ((252, 236, 205), (248, 226, 180)),
    "sea": ((196, 224, 232), (222, 238, 240)),
}
GROUND: dict[str, RGB] = {
    "snow": (226, 233, 246),
    "meadow": (160, 205, 120),
    "desert": (226, 190, 130),
    "sea": (84, 150, 190),
}
BACKGROUNDS: tuple[str, ...] = tuple(GRADIENTS)


@cache
def _gradient(name: str, size: int) -> Image.Image:
    """Return a vertical gradient of `size` × `size` pixels."""
    top, bottom = (np.array(colour, dtype=np.float64) for colour in GRADIENTS[name])
    ramp = np.linspace(0, 1, size)[:, None]
    column = (top + (bottom - top) * ramp).round().astype(np.uint8)
    return Image.fromarray(np.broadcast_to(column[:, None, :], (size, size, 3)).copy())


def _draw_ellipses(
    draw: ImageDraw.ImageDraw, size: int, centres: list[tuple[float, float]], rx: float, ry: float, fill: RGB
) -> None:
    for x, y in centres:
        draw.ellipse([(x - rx) * size, (y - ry) * size, (x + rx) * size, (y + ry) * size], fill=fill)


def paint_background(name: str, seed: int, size: int) -> Image.Image:
    """Return a fresh RGB image of the background; `seed` moves its horizon and details a little."""
    shift = random.Random(seed).uniform(-0.04, 0.04)
    canvas = _gradient(name, size).copy()
    draw = ImageDraw.Draw(canvas)
    if name in GROUND:
        draw.rectangle([0, (0.7 + shift) * size, size, size], fill=GROUND[name])
    if name == "sky":
        clouds = [(0.1 + shift, 0.1), (0.75 + shift, 0.82)]
        _draw_ellipses(draw, size, clouds, 0.12, 0.04, (244, 249, 254))
    if name == "night":
        stars = [(x + shift / 2, y) for x, y in ((0.08, 0.15), (0.9, 0.1), (0.1, 0.85), (0.93, 0.8))]
        _draw_ellipses(draw, size, stars, 0.018, 0.018, (246, 240, 200))
    return canvas
