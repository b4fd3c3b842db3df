"""Random drawings with as much detail as comparisons of images need."""

import random

from PIL import Image, ImageDraw


def drawing(seed: int, width: int = 360, height: int = 260) -> Image.Image:
    """Draw shapes of many colours and sizes over a gradient."""
    chance = random.Random(seed)
    image = _gradient(*_colours(chance, 2)).resize((width, height))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, side = chance.uniform(0, 0.85), chance.uniform(0, 0.85), chance.uniform(0.05, 0.3)
        shape = draw.ellipse if chance.random() < 0.5 else draw.rectangle
        shape((x * width, y * height, (x + side) * width, (y + side) * height), fill=_colours(chance, 1)[0])
    return image


def _gradient(top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image.Image:
    bands = (
        Image.linear_gradient("L").point([a + (b - a) * level // 255 for level in range(256)])
        for a, b in zip(top, bottom, strict=True)
    )
    return Image.merge("RGB", tuple(bands))


def _colours(chance: random.Random, count: int) -> list[tuple[int, int, int]]:
    return [(chance.randrange(256), chance.randrange(256), chance.randrange(256)) for _ in range(count)]
