"""Fish and sea animals that face right."""

from __future__ import annotations

from collections.abc import Mapping

from pleinair.tools.pocket.catalogue.drawings.geometry import (
    Points,
    Shape,
    bars,
    curve,
    dots,
    ellipse,
    polygon,
    stroke,
)
from pleinair.tools.pocket.catalogue.drawings.palette import distinct

MARKS = {
    "build": ("oval", "disc", "long", "shark", "horse", "puffer"),
    "pattern": ("plain", "barred", "lined", "spotted", "half"),
    "fin": ("small", "tall", "frilled"),
    "tail": ("fan", "fork", "veil"),
}
PARTS = ("body", "belly", "mark", "fin_colour", "eye")

_BODIES = {
    "oval": ((-0.62, 0.0), (-0.2, -0.4), (0.4, -0.44), (0.9, 0.02), (0.4, 0.42), (-0.2, 0.38)),
    "disc": ((-0.5, 0.0), (-0.16, -0.6), (0.36, -0.6), (0.86, 0.02), (0.36, 0.62), (-0.16, 0.6)),
    "long": ((-0.7, 0.0), (-0.2, -0.22), (0.5, -0.26), (0.96, 0.02), (0.5, 0.24), (-0.2, 0.2)),
    "shark": ((-0.72, -0.04), (-0.1, -0.32), (0.6, -0.28), (1.0, 0.0), (0.6, 0.22), (-0.1, 0.26)),
    "puffer": (
        (-0.55, 0.0),
        (-0.34, -0.5),
        (0.2, -0.66),
        (0.74, -0.3),
        (0.82, 0.16),
        (0.3, 0.66),
        (-0.34, 0.52),
    ),
}


def draw_fish(parts: Mapping[str, str]) -> list[Shape]:
    """Return the shapes of a fish, back to front; `parts` has every key of `PARTS` and `MARKS`."""
    if parts["build"] == "horse":
        return _draw_seahorse(parts)
    trunk = curve(*_BODIES[parts["build"]])
    top, bottom = float(trunk[:, 1].min()), float(trunk[:, 1].max())
    belly = curve((-0.7, bottom * 0.3), (0.3, bottom * 0.24), (1.0, bottom * 0.2), (0.9, 1.1), (-0.7, 1.1))
    return [
        *_tail(parts),
        *_fins(parts, top, bottom),
        *_spines(parts, trunk),
        Shape(parts["body"], trunk),
        Shape(parts["belly"], belly, trunk),
        *_pattern(parts, trunk),
        Shape(
            distinct(parts["fin_colour"], parts["body"]), polygon((0.2, 0.08), (-0.12, 0.02), (-0.06, 0.3))
        ),
        *_face(parts),
    ]


def _face(parts: Mapping[str, str]) -> list[Shape]:
    x, y = (0.62, -0.12) if parts["build"] != "long" else (0.7, -0.06)
    shapes = [Shape("white", ellipse(x, y, 0.105)), Shape(parts["eye"], ellipse(x + 0.02, y, 0.065))]
    if parts["build"] == "shark":
        shapes = [Shape("ink", ellipse(x, y, 0.055))]
        shapes += [
            Shape("dark grey", stroke((g, -0.08), (g - 0.03, 0.12), width=0.03)) for g in (0.34, 0.42, 0.5)
        ]
    return shapes


def _tail(parts: Mapping[str, str]) -> list[Shape]:
    colour = parts["fin_colour"]
    if parts["build"] == "shark":
        return [
            Shape(colour, polygon((-0.62, -0.06), (-1.0, -0.62), (-0.84, 0.0), (-0.96, 0.36), (-0.6, 0.08)))
        ]
    outline = {
        "fan": curve((-0.5, 0.0), (-0.78, -0.34), (-0.98, -0.3), (-0.94, 0.3), (-0.78, 0.34)),
        "fork": polygon((-0.5, -0.08), (-1.0, -0.5), (-0.78, 0.0), (-1.0, 0.5), (-0.5, 0.08)),
        "veil": curve(
            (-0.46, -0.1), (-0.8, -0.6), (-1.0, -0.5), (-0.86, 0.0), (-1.0, 0.7), (-0.76, 0.66), (-0.46, 0.1)
        ),
    }[parts["tail"]]
    return [Shape(colour, outline)]


def _fins(parts: Mapping[str, str], top: float, bottom: float) -> list[Shape]:
    colour = parts["fin_colour"]
    if parts["build"] == "shark":
        back = polygon((-0.06, -0.24), (0.02, -0.78), (0.3, -0.26))
        return [Shape(colour, back), Shape(colour, polygon((0.3, 0.14), (0.0, 0.6), (0.06, 0.16)))]
    if parts["fin"] == "tall":
        back = polygon((-0.24, top * 0.7), (-0.44, top - 0.4), (0.44, top * 0.86))
        return [
            Shape(colour, back),
            Shape(colour, polygon((-0.24, bottom * 0.7), (-0.44, bottom + 0.36), (0.36, bottom * 0.86))),
        ]
    if parts["fin"] == "frilled":
        rays = [
            stroke((x, top * 0.8), (x - 0.1, top - 0.34), width=0.09, end=0.02)
            for x in (-0.3, -0.12, 0.06, 0.24, 0.42)
        ]
        rays += [
            stroke((x, bottom * 0.8), (x - 0.1, bottom + 0.28), width=0.09, end=0.02)
            for x in (-0.2, 0.0, 0.2)
        ]
        return [Shape(colour, ray) for ray in rays]
    back = curve((-0.3, top * 0.75), (-0.1, top - 0.2), (0.3, top - 0.12), (0.46, top * 0.8))
    return [
        Shape(colour, back),
        Shape(colour, curve((-0.2, bottom * 0.8), (-0.14, bottom + 0.18), (0.12, bottom * 0.9))),
    ]


def _spines(parts: Mapping[str, str], trunk: Points) -> list[Shape]:
    if parts["build"] != "puffer":
        return []
    middle = trunk.mean(axis=0)
    return [
        Shape(
            parts["body"],
            stroke(
                (float(x), float(y)),
                (float(x + (x - middle[0]) * 0.22), float(y + (y - middle[1]) * 0.22)),
                width=0.09,
                end=0.01,
            ),
        )
        for x, y in trunk[::4]
    ]


def _pattern(parts: Mapping[str, str], trunk: Points) -> list[Shape]:
    mark = distinct(parts["mark"], parts["body"])
    if parts["pattern"] == "barred":
        return bars(mark, trunk, 4, share=0.4)
    if parts["pattern"] == "lined":
        return bars(mark, trunk, 3, across=True, share=0.4)
    if parts["pattern"] == "spotted":
        return dots(mark, trunk, 0.25, 0.075)
    if parts["pattern"] == "half":
        return [Shape(mark, polygon((0.12, -1), (1, -1), (1, 1), (0.12, 1)), trunk)]
    return []


def _draw_seahorse(parts: Mapping[str, str]) -> list[Shape]:
    trunk = curve((0.06, -0.56), (0.4, -0.2), (0.36, 0.24), (0.06, 0.42), (-0.14, 0.2), (-0.08, -0.2))
    tail = stroke((0.1, 0.3), (-0.02, 0.66), (-0.3, 0.9), (-0.46, 0.7), (-0.3, 0.62), width=0.26, end=0.06)
    shapes = [
        Shape(parts["fin_colour"], curve((-0.08, -0.2), (-0.46, -0.24), (-0.4, 0.22), (-0.1, 0.2))),
        Shape(parts["body"], tail),
        Shape(parts["body"], trunk),
        Shape(parts["belly"], ellipse(0.3, 0.06, 0.16, 0.3), trunk),
        *_pattern(parts, trunk),
        Shape(parts["body"], stroke((0.2, -0.6), (0.5, -0.56), (0.82, -0.44), width=0.22, end=0.12)),
        Shape(parts["body"], ellipse(0.12, -0.64, 0.26)),
        Shape(
            parts["fin_colour"],
            polygon((-0.1, -0.74), (-0.02, -1.0), (0.08, -0.86), (0.18, -1.0), (0.24, -0.8)),
        ),
        Shape("white", ellipse(0.2, -0.68, 0.09)),
        Shape(parts["eye"], ellipse(0.22, -0.68, 0.055)),
    ]
    return shapes
