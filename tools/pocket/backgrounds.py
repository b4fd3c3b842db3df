"""Six backgrounds: a pale gradient, for most of them a ground, and a few details."""

import random
from collections.abc import Callable
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


def _clouds(draw: ImageDraw.ImageDraw, size: int, shift: float) -> None:
    for x, y in ((0.1 + shift, 0.1), (0.75 + shift, 0.82)):
        draw.ellipse(
            [(x - 0.12) * size, (y - 0.04) * size, (x + 0.12) * size, (y + 0.04) * size], fill=(244, 249, 254)
        )


def _stars(draw: ImageDraw.ImageDraw, size: int, shift: float) -> None:
    for x, y in ((0.08, 0.15), (0.9, 0.1), (0.1, 0.85), (0.93, 0.8)):
        x, radius = x + shift / 2, 0.018
        draw.ellipse(
            [(x - radius) * size, (y - radius) * size, (x + radius) * size, (y + radius) * size],
            fill=(246, 240, 200),
        )


DETAILS: dict[str, Callable[[ImageDraw.ImageDraw, int, float], None]] = {"sky": _clouds, "night": _stars}


def paint_background(name: str, seed: int, size: int) -> Image.Image:
    """Return a fresh RGB image of the background; `seed` moves its horizon and details a little."""
    shift = random.Random(seed).uniform(-0.04, 0.04)
    canvas = _gradient(name, size).copy()
    draw = ImageDraw.Draw(canvas)
    if name in GROUND:
        draw.rectangle([0, (0.7 + shift) * size, size, size], fill=GROUND[name])
    if name in DETAILS:
        DETAILS[name](draw, size, shift)
    return canvas
