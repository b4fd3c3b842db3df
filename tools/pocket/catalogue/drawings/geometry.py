"""Outlines of shapes in a unit square, x right and y down, both in -1..1, and patterns inside of outlines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # [n, 2]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Shape:
    """Filled outline; `clip` is an outline that it is cut to."""

    colour: str  # a key of `COLOURS`
    points: Points
    clip: Points | None = None


def ellipse(x: float, y: float, rx: float, ry: float | None = None, turn: float = 0.0) -> Points:
    """Return 32 points around an ellipse, by default a circle, turned by `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    px, py = rx * np.cos(angle), (rx if ry is None else ry) * np.sin(angle)
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([x + px * cos - py * sin, y + px * sin + py * cos], axis=1)


def polygon(*points: Point) -> Points:
    """Return an outline with straight edges."""
    return np.array(points, dtype=np.float64)


def curve(*points: Point, closed: bool = True) -> Points:
    """Return a smooth line through the points (Catmull and Rom, 1974), with 8 points an edge."""
    knots = np.array(points, dtype=np.float64)
    before, after = (knots[-1:], knots[:2]) if closed else (knots[:1], knots[-1:])
    padded = np.concatenate([before, knots, after])
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    edges = [_edge(padded[start : start + 4], t) for start in range(len(padded) - 3)]
    return np.concatenate(edges if closed else [*edges, knots[-1:]])


def _edge(knots: Points, t: Points) -> Points:
    a, b, c, d = knots
    square, cube = (2 * a - 5 * b + 4 * c - d) * t**2, (3 * b - a - 3 * c + d) * t**3
    line: Points = 0.5 * (2 * b + (c - a) * t + square + cube)
    return line


def stroke(*points: Point, width: float = 0.08, end: float | None = None) -> Points:
    """Return the outline of a smooth line, `width` wide at its start and `end` at its end."""
    line = curve(*points, closed=False)
    along = np.gradient(line, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    half = np.linspace(width, width if end is None else end, len(line))[:, None] / 2
    return np.concatenate([line + normal * half, (line - normal * half)[::-1]])


def moved(points: Points, x: float = 0.0, y: float = 0.0, scale: float = 1.0, turn: float = 0.0) -> Points:
    """Return the points scaled, turned by radians around the origin, then moved."""
    cos, sin = np.cos(turn), np.sin(turn)
    turned: Points = points @ np.array([[cos, sin], [-sin, cos]]) * scale + np.array([x, y])
    return turned


def mirrored(points: Points) -> Points:
    """Return the points with left and right exchanged."""
    flipped: Points = points * np.array([-1.0, 1.0])
    return flipped


def bars(
    colour: str, region: Points, count: int, *, across: bool = False, share: float = 0.45
) -> list[Shape]:
    """Return `count` stripes inside of a region: upright ones, or with `across` level ones."""
    axis = 1 if across else 0
    low, high = region.min(axis=0), region.max(axis=0)
    step = (high[axis] - low[axis]) / count
    stripes = []
    for number in range(count):
        start, end = low.copy(), high.copy()
        start[axis] = low[axis] + step * (number + (1 - share) / 2)
        end[axis] = start[axis] + step * share
        corners = polygon(tuple(start), (end[0], start[1]), tuple(end), (start[0], end[1]))
        stripes.append(Shape(colour, corners, region))
    return stripes


def dots(colour: str, region: Points, spacing: float, radius: float) -> list[Shape]:
    """Return staggered round spots inside of a region."""
    return [Shape(colour, ellipse(x, y, radius), region) for x, y in _lattice(region, spacing)]


def _lattice(region: Points, spacing: float) -> Iterator[Point]:
    low, high = region.min(axis=0), region.max(axis=0)
    centre = (low + high) / 2
    rows = int((high[1] - low[1]) / spacing / 2) + 1
    columns = int((high[0] - low[0]) / spacing / 2) + 1
    for row in range(-rows, rows + 1):
        for column in range(-columns, columns + 1):
            yield centre[0] + (column + 0.5 * (row % 2)) * spacing, centre[1] + row * spacing * 0.87


def ring(x: float, y: float, count: int, radius: float, start: float = 0.0) -> Sequence[tuple[Point, float]]:
    """Return `count` places around a centre, each with its angle in radians."""
    angles = [start + 2 * np.pi * number / count for number in range(count)]
    return [((x + radius * float(np.cos(a)), y + radius * float(np.sin(a))), float(a)) for a in angles]
