"""Places behind the subjects: a sky, a ground and a few details, with light and weather."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Draw = ImageDraw.ImageDraw
LIGHTS = ("day", "sunset", "night")
WEATHERS = ("clear", "rain", "snowfall", "fog")

_SKIES: dict[str, tuple[RGB, RGB]] = {
    "day": ((170, 212, 246), (224, 240, 250)),
    "sunset": ((246, 168, 112), (252, 222, 166)),
    "night": ((40, 46, 92), (84, 92, 146)),
}
_INDOORS: tuple[RGB, RGB] = ((240, 226, 204), (246, 236, 220))
_UNDER_WATER: tuple[RGB, RGB] = ((96, 180, 214), (52, 122, 178))


class _Canvas:
    """Image with its drawing tool; positions and lengths are shares of its side."""

    def __init__(self, image: Image.Image, seed: int) -> None:
        self.image, self.size = image, image.width
        self.rng = random.Random(seed)
        self.shift = self.rng.uniform(-0.035, 0.035)
        self._draw = ImageDraw.Draw(image)

    def box(self, left: float, top: float, right: float, bottom: float, fill: RGB) -> None:
        """Fill a rectangle."""
        s = self.size
        self._draw.rectangle([left * s, top * s, right * s, bottom * s], fill=fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: RGB) -> None:
        """Fill an ellipse."""
        s = self.size
        self._draw.ellipse([(x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s], fill=fill)

    def area(self, *points: tuple[float, float], fill: RGB) -> None:
        """Fill a polygon."""
        self._draw.polygon([(x * self.size, y * self.size) for x, y in points], fill=fill)

    def line(self, start: tuple[float, float], end: tuple[float, float], width: float, fill: RGB) -> None:
        """Draw a line."""
        ends = [(x * self.size, y * self.size) for x, y in (start, end)]
        self._draw.line(ends, fill=fill, width=max(1, round(width * self.size)))

    def ground(self, fill: RGB, top: float = 0.7) -> float:
        """Fill everything below a horizon and return where it is."""
        horizon = top + self.shift
        self.box(0, horizon, 1, 1, fill)
        return horizon


def _meadow(canvas: _Canvas) -> None:
    horizon = canvas.ground((150, 202, 112))
    for number in range(7):
        x = (number * 0.15 + canvas.rng.uniform(0, 0.1)) % 1
        y = horizon + canvas.rng.uniform(0.06, 0.26)
        canvas.oval(x, y, 0.012, 0.012, ((250, 236, 140), (252, 250, 244))[number % 2])


def _forest(canvas: _Canvas) -> None:
    horizon = canvas.ground((128, 168, 98), 0.72)
    for number in range(6):
        x = number * 0.19 + canvas.shift
        canvas.box(x + 0.015, horizon - 0.12, x + 0.045, horizon, (146, 116, 88))
        canvas.area(
            (x - 0.06, horizon - 0.08),
            (x + 0.03, horizon - 0.42),
            (x + 0.12, horizon - 0.08),
            fill=(116, 168, 122),
        )


def _jungle(canvas: _Canvas) -> None:
    canvas.ground((112, 156, 92), 0.74)
    for number in range(5):
        x = number * 0.25 + canvas.shift
        canvas.oval(x, 0.03, 0.17, 0.1, (106, 172, 112))
        canvas.line((x + 0.1, 0.0), (x + 0.06, 0.34), 0.014, (92, 150, 96))


def _beach(canvas: _Canvas) -> None:
    horizon = canvas.ground((112, 186, 212), 0.56)
    canvas.area((0, horizon + 0.2), (1, horizon + 0.12), (1, 1), (0, 1), fill=(242, 220, 168))
    canvas.line((0, horizon + 0.2), (1, horizon + 0.12), 0.018, (250, 250, 246))


def _sea(canvas: _Canvas) -> None:
    horizon = canvas.ground((88, 154, 200), 0.62)
    for row in range(3):
        for number in range(4):
            x, y = number * 0.27 + row * 0.11, horizon + 0.09 + row * 0.11
            canvas.line((x, y), (x + 0.1, y), 0.012, (152, 202, 228))


def _lake(canvas: _Canvas) -> None:
    horizon = canvas.ground((146, 192, 120), 0.62)
    canvas.oval(0.5, horizon + 0.2, 0.62, 0.16, (122, 184, 220))
    for x in (0.04, 0.1, 0.92, 0.97):
        canvas.line((x, horizon + 0.2), (x, horizon - 0.02), 0.014, (118, 158, 84))


def _underwater(canvas: _Canvas) -> None:
    horizon = canvas.ground((222, 204, 152), 0.86)
    for x in (0.08, 0.17, 0.88, 0.95):
        canvas.line(
            (x + canvas.shift, horizon + 0.03), (x + canvas.shift / 2, horizon - 0.3), 0.024, (72, 156, 116)
        )
    for x, y in ((0.28, 0.14), (0.32, 0.07), (0.76, 0.2)):
        canvas.oval(x + canvas.shift, y, 0.018, 0.018, (190, 230, 242))


def _desert(canvas: _Canvas) -> None:
    canvas.ground((236, 200, 140), 0.68)
    canvas.area(
        (0.4, 0.7 + canvas.shift), (0.8, 0.56 + canvas.shift), (1.1, 0.7 + canvas.shift), fill=(226, 186, 126)
    )
    canvas.box(0.09, 0.5, 0.125, 0.76, (112, 158, 104))
    canvas.box(0.04, 0.56, 0.065, 0.64, (112, 158, 104))
    canvas.box(0.04, 0.61, 0.1, 0.64, (112, 158, 104))


def _mountains(canvas: _Canvas) -> None:
    horizon = canvas.ground((160, 196, 130), 0.74)
    for x, height in ((0.16, 0.42), (0.55, 0.54), (0.9, 0.38)):
        top = horizon - height
        canvas.area((x - 0.34, horizon), (x, top), (x + 0.34, horizon), fill=(156, 166, 190))
        canvas.area(
            (x - 0.09, top + height * 0.26), (x, top), (x + 0.09, top + height * 0.26), fill=(246, 248, 252)
        )


def _city(canvas: _Canvas) -> None:
    horizon = canvas.ground((186, 188, 194), 0.78)
    for number, height in enumerate((0.42, 0.58, 0.34, 0.5, 0.4, 0.56)):
        left = number * 0.18 - 0.04 + canvas.shift
        canvas.box(
            left, horizon - height, left + 0.15, horizon, ((196, 180, 172), (176, 184, 200))[number % 2]
        )
        for row in range(3):
            canvas.box(
                left + 0.045,
                horizon - height + 0.05 + row * 0.1,
                left + 0.095,
                horizon - height + 0.09 + row * 0.1,
                (246, 238, 196),
            )


def _road(canvas: _Canvas) -> None:
    canvas.ground((166, 204, 128), 0.6)
    canvas.box(0, 0.76, 1, 1, (134, 138, 146))
    for number in range(4):
        canvas.box(
            number * 0.28 + canvas.shift, 0.875, number * 0.28 + 0.13 + canvas.shift, 0.9, (248, 244, 220)
        )


def _sky(canvas: _Canvas) -> None:
    for x, y in ((0.16, 0.16), (0.78, 0.26), (0.3, 0.86), (0.86, 0.8)):
        for dx, r in ((-0.07, 0.05), (0.0, 0.07), (0.08, 0.05)):
            canvas.oval(x + dx + canvas.shift, y, r, r * 0.62, (246, 250, 254))


def _snow(canvas: _Canvas) -> None:
    canvas.ground((238, 243, 250), 0.66)
    canvas.oval(0.24 + canvas.shift, 0.72, 0.4, 0.09, (228, 236, 248))
    for x in (0.08, 0.92):
        canvas.area((x - 0.08, 0.68), (x, 0.38), (x + 0.08, 0.68), fill=(142, 176, 160))
        canvas.area((x - 0.04, 0.52), (x, 0.38), (x + 0.04, 0.52), fill=(246, 248, 252))


def _garden(canvas: _Canvas) -> None:
    horizon = canvas.ground((146, 200, 110), 0.66)
    for number in range(8):
        left = number * 0.135 + canvas.shift
        canvas.box(left, horizon - 0.2, left + 0.05, horizon + 0.03, (250, 246, 236))
    canvas.box(0, horizon - 0.12, 1, horizon - 0.08, (250, 246, 236))
    for x, fill in ((0.08, (232, 120, 140)), (0.9, (240, 200, 90)), (0.97, (190, 140, 210))):
        canvas.oval(x, 0.84, 0.03, 0.03, fill)


def _table(canvas: _Canvas) -> None:
    canvas.box(0.06, 0.08, 0.36, 0.42, (190, 222, 242))
    canvas.box(0.2, 0.08, 0.22, 0.42, (222, 200, 170))
    canvas.box(0.06, 0.24, 0.36, 0.26, (222, 200, 170))
    canvas.ground((196, 148, 104), 0.74)
    canvas.box(0, 0.74 + canvas.shift, 1, 0.77 + canvas.shift, (172, 124, 84))


BACKGROUNDS: dict[str, Callable[[_Canvas], None]] = {
    "meadow": _meadow,
    "forest": _forest,
    "jungle": _jungle,
    "beach": _beach,
    "sea": _sea,
    "lake": _lake,
    "underwater": _underwater,
    "desert": _desert,
    "mountains": _mountains,
    "city": _city,
    "road": _road,
    "sky": _sky,
    "snow": _snow,
    "garden": _garden,
    "table": _table,
}


@cache
def _gradient(top: RGB, bottom: RGB, size: int) -> Image.Image:
    ramp = np.linspace(0, 1, size)[:, None]
    column = (np.array(top) * (1 - ramp) + np.array(bottom) * ramp).round().astype(np.uint8)
    return Image.fromarray(np.broadcast_to(column[:, None, :], (size, size, 3)).copy())


def paint_background(name: str, light: str, weather: str, seed: int, size: int) -> Image.Image:
    """Return a fresh RGB image of a place; `seed` moves its horizon and details a little."""
    ends = {"table": _INDOORS, "underwater": _UNDER_WATER}.get(name, _SKIES[light])
    canvas = _Canvas(_gradient(*ends, size).copy(), seed)
    outdoors = name not in ("table", "underwater")
    if outdoors and light == "night":
        for x, y in ((0.08, 0.1), (0.3, 0.06), (0.62, 0.12), (0.93, 0.3), (0.16, 0.28)):
            canvas.oval(x + canvas.shift, y, 0.011, 0.011, (250, 244, 206))
        canvas.oval(0.86 + canvas.shift, 0.13, 0.07, 0.07, (248, 240, 204))
    if outdoors and light == "sunset":
        canvas.oval(0.82 + canvas.shift, 0.3, 0.1, 0.1, (252, 236, 170))
    BACKGROUNDS[name](canvas)
    image = canvas.image
    if light != "day":
        tint, share = ((38, 42, 96), 0.4) if light == "night" else ((240, 140, 80), 0.16)
        if outdoors:
            below = image.crop((0, int(size * 0.5), size, size))
            image.paste(Image.blend(below, Image.new("RGB", below.size, tint), share), (0, int(size * 0.5)))
    if weather == "fog":
        image = Image.blend(image, Image.new("RGB", image.size, (226, 230, 234)), 0.5)
    return image


def paint_weather(image: Image.Image, weather: str, seed: int) -> None:
    """Paint rain or snowflakes over an image."""
    if weather not in ("rain", "snowfall"):
        return
    canvas = _Canvas(image, seed + 1)
    for _ in range(28):
        x, y = canvas.rng.random(), canvas.rng.random()
        if weather == "rain":
            canvas.line((x, y), (x - 0.02, y + 0.07), 0.008, (132, 160, 206))
        else:
            canvas.oval(x, y, 0.013, 0.013, (255, 255, 255))
