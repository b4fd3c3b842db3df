"""Butterflies with open wings, seen from above."""

from __future__ import annotations

from collections.abc import Mapping

from pleinair.tools.pocket.catalogue.drawings.geometry import (
    Points,
    Shape,
    bars,
    curve,
    dots,
    ellipse,
    mirrored,
    stroke,
)
from pleinair.tools.pocket.catalogue.drawings.palette import distinct

MARKS = {
    "outline": ("round", "tailed", "pointed"),
    "border": ("none", "plain", "dotted"),
    "pattern": ("plain", "veined", "spotted", "banded", "eyes"),
}
PARTS = ("fore", "hind", "border_colour", "mark", "body")

_FORE = {
    "round": ((0.06, -0.1), (0.3, -0.66), (0.78, -0.84), (0.96, -0.5), (0.72, -0.02), (0.2, 0.06)),
    "tailed": ((0.06, -0.1), (0.36, -0.74), (0.9, -0.86), (0.94, -0.56), (0.64, -0.02), (0.2, 0.06)),
    "pointed": ((0.06, -0.1), (0.34, -0.6), (0.98, -0.94), (0.86, -0.42), (0.7, -0.02), (0.2, 0.06)),
}
_HIND = {
    "round": ((0.06, 0.0), (0.5, 0.0), (0.8, 0.26), (0.68, 0.68), (0.34, 0.76), (0.1, 0.4)),
    "tailed": (
        (0.06, 0.0),
        (0.52, 0.02),
        (0.72, 0.34),
        (0.6, 0.62),
        (0.66, 0.98),
        (0.46, 0.96),
        (0.36, 0.66),
        (0.1, 0.4),
    ),
    "pointed": ((0.06, 0.0), (0.5, 0.0), (0.86, 0.3), (0.6, 0.56), (0.36, 0.8), (0.1, 0.4)),
}


def draw_butterfly(parts: Mapping[str, str]) -> list[Shape]:
    """Return the shapes of a butterfly, back to front; `parts` has every key of `PARTS` and `MARKS`."""
    right = [*_wing(parts, "hind", _HIND[parts["outline"]]), *_wing(parts, "fore", _FORE[parts["outline"]])]
    antennae = [stroke((0.02, -0.34), (0.1, -0.6), (0.22, -0.76), width=0.035), ellipse(0.22, -0.76, 0.04)]
    right += [Shape("ink", outline) for outline in antennae]
    left = [Shape(s.colour, mirrored(s.points), None if s.clip is None else mirrored(s.clip)) for s in right]
    trunk = [
        Shape(parts["body"], ellipse(0, 0.08, 0.075, 0.44)),
        Shape(parts["body"], ellipse(0, -0.34, 0.09)),
    ]
    return [*left, *right, *trunk]


def _wing(parts: Mapping[str, str], name: str, knots: tuple[tuple[float, float], ...]) -> list[Shape]:
    outline = curve(*knots)
    middle = outline.mean(axis=0)
    inner = (outline - middle) * 0.74 + middle * 0.96
    colour = parts[name]
    if parts["border"] == "none":
        shapes, field = [Shape(colour, outline)], outline
    else:
        shapes, field = [Shape(parts["border_colour"], outline), Shape(colour, inner)], inner
    if parts["border"] == "dotted":
        edge = (outline - middle) * 0.86 + middle * 0.98
        shapes += [Shape("white", ellipse(x, y, 0.035)) for x, y in edge[4::6]]
    return [*shapes, *_pattern(parts, field, name)]


def _pattern(parts: Mapping[str, str], field: Points, name: str) -> list[Shape]:
    mark = distinct(parts["mark"], parts[name])
    (x, y), root = field.mean(axis=0), (0.08, 0.02)
    if parts["pattern"] == "veined":
        ends = field[2::9]
        return [Shape(mark, stroke(root, (float(px), float(py)), width=0.045), field) for px, py in ends]
    if parts["pattern"] == "spotted":
        return dots(mark, field, 0.25, 0.07)
    if parts["pattern"] == "banded":
        return bars(mark, field, 3, across=False, share=0.36)
    if parts["pattern"] == "eyes":
        return [
            Shape(mark, ellipse(x + 0.12, y, 0.16)),
            Shape("ink", ellipse(x + 0.12, y, 0.09)),
            Shape("white", ellipse(x + 0.15, y - 0.03, 0.03)),
        ]
    return []
