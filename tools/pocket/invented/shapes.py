"""Shapes of each kind: coloured polygons in a unit square, x right and y down, both in -1..1."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Shape = tuple[str, Points]

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "orange": (248, 130, 25),
    "yellow": (250, 220, 45),
    "green": (35, 150, 55),
    "teal": (0, 175, 170),
    "blue": (35, 75, 215),
    "violet": (130, 50, 185),
    "pink": (248, 120, 185),
    "brown": (115, 70, 35),
    "grey": (135, 140, 148),
    "white": (250, 250, 250),
    "black": (28, 28, 32),
}
DETAIL_COLOURS: dict[str, tuple[int, int, int]] = {
    "ink": (25, 25, 30),
    "beak": (225, 160, 50),
    "glass": (205, 230, 240),
    "stem": (70, 130, 60),
    "wicker": (150, 105, 60),
}
COLOURS = PALETTE | DETAIL_COLOURS


def _ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> Points:
    """Return 28 points around an ellipse turned by `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    px, py = rx * np.cos(angle), ry * np.sin(angle)
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([x + px * cos - py * sin, y + px * sin + py * cos], axis=1)


def _polygon(*points: tuple[float, float]) -> Points:
    """Return the points as an (n, 2) array."""
    return np.array(points, dtype=np.float64)


def _slice_of_ellipse(
    x: float, y: float, rx: float, ry: float, start: float, end: float, upper_only: bool = False
) -> Points:
    """Return the part of an upright ellipse between two vertical lines at -1..1 of its radius."""
    u = np.linspace(start, end, 8)
    rise = ry * np.sqrt(np.clip(1 - u * u, 0, 1))
    bottom = np.zeros_like(u) if upper_only else rise
    top_side = np.stack([x + rx * u, y - rise], axis=1)
    return np.concatenate([top_side, np.stack([x + rx * u, y + bottom], axis=1)[::-1]])


def _spots(colour: str, radius: float, *centres: tuple[float, float]) -> list[Shape]:
    return [(colour, _ellipse(x, y, radius, radius)) for x, y in centres]


def _bird(body: str, accent: str, pattern: str) -> list[Shape]:
    """Draw a bird that faces right: body and head in `body`, wing, tail and crest in `accent`."""
    shapes = [
        (accent, _polygon((-1, -0.35), (-0.4, -0.2), (-0.3, 0.4), (-1, 0.45))),
        (accent, _polygon((0.1, -0.5), (0.1, -1), (0.55, -0.9), (0.8, -0.5))),
        ("ink", _polygon((-0.14, 0.5), (-0.04, 0.5), (-0.04, 0.95), (-0.14, 0.95))),
        ("ink", _polygon((0.14, 0.5), (0.24, 0.5), (0.24, 0.95), (0.14, 0.95))),
        ("beak", _polygon((0.74, -0.45), (1, -0.28), (0.74, -0.15))),
        (body, _ellipse(0.03, 0.12, 0.66, 0.54)),
        (body, _ellipse(0.48, -0.32, 0.36, 0.34)),
        (accent, _ellipse(-0.15, 0.12, 0.47, 0.34, 0.25)),
        ("ink", _ellipse(0.56, -0.38, 0.08, 0.08)),
    ]
    if pattern == "striped":
        shapes.append((body, _slice_of_ellipse(-0.15, 0.12, 0.47, 0.3, -0.2, 0.25)))
    if pattern == "spotted":
        shapes += _spots(body, 0.12, (-0.34, 0.06), (0.03, 0.2))
    return shapes


def _car(body: str, accent: str, pattern: str) -> list[Shape]:
    """Draw a car that faces right: hull in `body`, roof in `accent`, with windows and wheels."""
    shapes = [
        (accent, _polygon((-0.78, -0.1), (-0.52, -0.85), (0.36, -0.85), (0.7, -0.1))),
        ("glass", _polygon((-0.44, -0.2), (-0.32, -0.5), (-0.12, -0.5), (-0.12, -0.2))),
        ("glass", _polygon((0.07, -0.2), (0.07, -0.5), (0.22, -0.5), (0.38, -0.2))),
        (body, _polygon((-1, 0.02), (-0.92, -0.14), (0.75, -0.14), (0.98, 0.05), (1, 0.5), (-1, 0.5))),
        *_spots("ink", 0.26, (-0.55, 0.5), (0.55, 0.5)),
        *_spots("white", 0.1, (-0.55, 0.5), (0.55, 0.5)),
    ]
    if pattern == "striped":
        shapes.insert(4, (accent, _polygon((-1, 0.1), (0.98, 0.1), (1, 0.28), (-1, 0.28))))
    if pattern == "spotted":
        shapes[4:4] = _spots(accent, 0.13, (-0.7, 0.1), (-0.23, 0.1), (0.23, 0.1), (0.7, 0.1))
    return shapes


def _flower(body: str, accent: str, pattern: str) -> list[Shape]:
    """Draw a flower: six petals in `body`, the heart in `accent`, on a stem with two leaves."""
    angles = [np.pi / 3 * i for i in range(6)]
    shapes = [
        ("stem", _polygon((-0.05, 0), (0.05, 0), (0.05, 1), (-0.05, 1))),
        ("stem", _ellipse(0.25, 0.75, 0.25, 0.1, -0.5)),
        ("stem", _ellipse(-0.25, 0.8, 0.25, 0.1, 0.5)),
    ]
    for i, a in enumerate(angles):
        colour = accent if pattern == "striped" and i % 2 else body
        shapes.append((colour, _ellipse(0.48 * np.cos(a), -0.25 + 0.48 * np.sin(a), 0.32, 0.24, a)))
    if pattern == "spotted":
        shapes += [(accent, _ellipse(0.58 * np.cos(a), -0.25 + 0.58 * np.sin(a), 0.09, 0.09)) for a in angles]
    heart = body if pattern == "striped" else accent
    return [*shapes, (accent, _ellipse(0, -0.25, 0.33, 0.33)), (heart, _ellipse(0, -0.25, 0.14, 0.14))]


def _fish(body: str, accent: str, pattern: str) -> list[Shape]:
    """Draw a fish that faces right: trunk in `body`, fins and tail in `accent`."""
    shapes = [
        (accent, _polygon((-1, -0.75), (-0.3, -0.1), (-0.3, 0.1), (-1, 0.75))),
        (accent, _polygon((-0.45, -0.3), (-0.15, -0.98), (0.35, -0.85), (0.6, -0.3))),
        (accent, _polygon((-0.4, 0.3), (-0.2, 0.92), (0.15, 0.85), (0.4, 0.3))),
        (body, _ellipse(0.2, 0, 0.78, 0.54)),
        ("white", _ellipse(0.62, -0.12, 0.16, 0.16)),
        ("ink", _ellipse(0.65, -0.12, 0.09, 0.09)),
    ]
    if pattern == "striped":
        shapes.append((accent, _slice_of_ellipse(0.2, 0, 0.78, 0.54, -0.35, -0.08)))
    if pattern == "spotted":
        shapes += _spots(accent, 0.14, (-0.25, -0.05), (0.15, -0.22), (0.15, 0.22))
    return shapes


def _mushroom(body: str, accent: str, pattern: str) -> list[Shape]:
    """Draw a mushroom: cap in `body`, stem in `accent`."""
    shapes = [
        (accent, _polygon((-0.28, 0), (0.28, 0), (0.4, 0.95), (-0.4, 0.95))),
        (body, _slice_of_ellipse(0, 0.15, 1, 1.05, -1, 1, upper_only=True)),
    ]
    if pattern == "striped":
        shapes += [
            (accent, _slice_of_ellipse(0, 0.15, 1, 1.05, start, start + 0.22, upper_only=True))
            for start in (-0.66, -0.11, 0.44)
        ]
    if pattern == "spotted":
        shapes += _spots(accent, 0.15, (-0.55, -0.1), (0, -0.6), (0, -0.1), (0.55, -0.1))
    return shapes


def _balloon(body: str, accent: str, pattern: str) -> list[Shape]:
    """Draw a hot-air balloon: envelope in `body`, mouth and crown in `accent`, above a basket."""
    shapes = [
        ("wicker", _polygon((-0.2, 0.7), (0.2, 0.7), (0.16, 1), (-0.16, 1))),
        (accent, _polygon((-0.62, 0.1), (0.62, 0.1), (0.2, 0.66), (-0.2, 0.66))),
        (body, _ellipse(0, -0.25, 0.78, 0.75)),
        (accent, _polygon((-0.45, -0.86), (0, -1), (0.45, -0.86), (0.3, -0.72), (-0.3, -0.72))),
    ]
    if pattern == "striped":
        shapes += [
            (accent, _slice_of_ellipse(0, -0.25, 0.78, 0.75, start, start + 0.26))
            for start in (-0.64, -0.13, 0.38)
        ]
    if pattern == "spotted":
        shapes += _spots(accent, 0.14, (-0.45, -0.25), (0, -0.45), (0, -0.02), (0.45, -0.25))
    return shapes


DRAW: dict[str, Callable[[str, str, str], list[Shape]]] = {
    "bird": _bird,
    "car": _car,
    "flower": _flower,
    "fish": _fish,
    "mushroom": _mushroom,
    "balloon": _balloon,
}
