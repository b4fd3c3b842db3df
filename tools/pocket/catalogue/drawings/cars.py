"""Cars, vans and trucks that face right."""

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
    "build": ("saloon", "beetle", "convertible", "pickup", "van", "bus", "racer", "lorry", "tractor"),
    "top": ("none", "light", "ladder", "sign", "rack"),
    "pattern": ("plain", "stripe", "checks", "spots", "two-tone", "flames"),
}
PARTS = ("body", "mark", "roof", "top_colour", "wheel")

_HULLS = {
    "saloon": curve(
        (-0.98, 0.1), (-0.9, -0.14), (0.0, -0.18), (0.84, -0.08), (1.0, 0.16), (0.94, 0.46), (-0.94, 0.46)
    ),
    "beetle": curve(
        (-0.92, 0.24), (-0.82, -0.1), (0.0, -0.2), (0.76, -0.04), (0.94, 0.26), (0.8, 0.46), (-0.8, 0.46)
    ),
    "convertible": curve(
        (-1.0, 0.06),
        (-0.8, -0.1),
        (-0.3, 0.02),
        (0.24, 0.0),
        (0.84, -0.02),
        (1.0, 0.18),
        (0.94, 0.44),
        (-0.94, 0.44),
    ),
    "pickup": polygon(
        (-1.0, -0.02), (0.04, -0.02), (0.04, -0.14), (0.74, -0.1), (0.98, 0.06), (0.98, 0.46), (-1.0, 0.46)
    ),
    "van": curve(
        (-0.96, -0.5), (-0.9, -0.66), (0.5, -0.66), (0.8, -0.16), (0.96, 0.02), (0.96, 0.46), (-0.96, 0.46)
    ),
    "bus": polygon((-1.0, -0.7), (0.9, -0.7), (0.98, -0.1), (0.98, 0.46), (-1.0, 0.46)),
    "racer": curve(
        (-1.0, 0.26), (-0.6, 0.1), (0.1, 0.1), (0.6, 0.24), (1.0, 0.34), (0.98, 0.46), (-1.0, 0.46)
    ),
    "lorry": polygon(
        (0.36, -0.52), (0.76, -0.52), (0.96, -0.06), (0.96, 0.46), (-1.0, 0.46), (-1.0, 0.2), (0.36, 0.2)
    ),
    "tractor": polygon((-0.5, 0.0), (0.9, -0.06), (0.92, 0.4), (-0.5, 0.4)),
}


def draw_car(parts: Mapping[str, str]) -> list[Shape]:
    """Return the shapes of a car, back to front; `parts` has every key of `PARTS` and `MARKS`."""
    build, hull = parts["build"], _HULLS[parts["build"]]
    return [
        *_top(parts),
        *_cabin(parts),
        Shape(parts["body"], hull),
        *_pattern(parts, hull),
        *_details(parts),
        *_wheels(build, parts["wheel"]),
    ]


def _cabin(parts: Mapping[str, str]) -> list[Shape]:
    """Return what is behind the hull: the roof with its windows, or the load."""
    build, roof = parts["build"], parts["roof"]
    if build == "saloon":
        return [
            Shape(roof, curve((-0.74, -0.08), (-0.46, -0.6), (0.26, -0.62), (0.6, -0.06))),
            *_panes((-0.5, -0.12, -0.48), (0.06, 0.36, -0.48)),
        ]
    if build == "beetle":
        return [
            Shape(roof, curve((-0.74, 0.0), (-0.5, -0.62), (0.1, -0.72), (0.52, -0.36), (0.6, 0.0))),
            *_panes((-0.46, -0.1, -0.5), (0.02, 0.34, -0.5)),
        ]
    if build == "convertible":
        return [
            Shape("glass", stroke((0.22, 0.06), (0.02, -0.42), width=0.07)),
            Shape(roof, curve((-0.5, 0.1), (-0.46, -0.26), (-0.3, -0.24), (-0.26, 0.1))),
            Shape(roof, curve((-0.9, 0.0), (-0.78, -0.24), (-0.54, -0.18), (-0.6, 0.1))),
        ]
    if build == "pickup":
        return [
            Shape(roof, curve((0.0, -0.06), (0.04, -0.6), (0.4, -0.6), (0.66, -0.06))),
            *_panes((0.12, 0.46, -0.46)),
        ]
    if build == "racer":
        return [
            Shape(
                roof,
                polygon(
                    (-1.0, -0.34),
                    (-0.62, -0.34),
                    (-0.62, -0.2),
                    (-0.78, -0.2),
                    (-0.74, 0.3),
                    (-0.88, 0.3),
                    (-0.86, -0.2),
                    (-1.0, -0.2),
                ),
            ),
            Shape("white", ellipse(-0.1, 0.04, 0.17)),
            Shape("ink", ellipse(-0.03, 0.04, 0.09, 0.06)),
        ]
    if build == "lorry":
        return [Shape(roof, polygon((-1.0, -0.7), (0.28, -0.7), (0.28, 0.26), (-1.0, 0.26)))]
    if build == "tractor":
        return [
            Shape(roof, polygon((-0.62, -0.9), (0.16, -0.9), (0.16, -0.76), (-0.62, -0.76))),
            Shape("glass", polygon((-0.5, -0.76), (0.06, -0.76), (0.12, 0.1), (-0.5, 0.1))),
            Shape("dark grey", stroke((0.6, 0.0), (0.6, -0.5), width=0.1)),
        ]
    return []


def _panes(*panes: tuple[float, float, float]) -> list[Shape]:
    return [
        Shape("glass", polygon((left, -0.14), (left + 0.06, top), (right - 0.08, top), (right, -0.14)))
        for left, right, top in panes
    ]


def _details(parts: Mapping[str, str]) -> list[Shape]:
    build, x = parts["build"], 0.88
    shapes = []
    if build == "bus":
        shapes += [
            Shape("glass", polygon((left, -0.52), (left + 0.26, -0.52), (left + 0.26, -0.2), (left, -0.2)))
            for left in (-0.9, -0.56, -0.22, 0.12, 0.5)
        ]
    if build == "van":
        shapes.append(Shape("glass", polygon((0.3, -0.52), (0.46, -0.52), (0.68, -0.14), (0.3, -0.14))))
    if build == "lorry":
        shapes.append(Shape("glass", polygon((0.5, -0.42), (0.7, -0.42), (0.84, -0.08), (0.5, -0.08))))
    if build not in ("racer",):
        shapes.append(Shape("yellow", ellipse(x, 0.14, 0.075)))
    return shapes


def _wheels(build: str, hub: str) -> list[Shape]:
    places = {
        "racer": ((-0.6, 0.44, 0.28), (0.56, 0.46, 0.24)),
        "tractor": ((-0.5, 0.36, 0.56), (0.62, 0.6, 0.3)),
        "lorry": ((-0.7, 0.5, 0.22), (-0.24, 0.5, 0.22), (0.62, 0.5, 0.22)),
    }
    wheels = places.get(build, ((-0.56, 0.48, 0.25), (0.56, 0.48, 0.25)))
    return [
        shape
        for x, y, r in wheels
        for shape in (Shape("rubber", ellipse(x, y, r)), Shape(hub, ellipse(x, y, r * 0.5)))
    ]


def _pattern(parts: Mapping[str, str], hull: Points) -> list[Shape]:
    mark = distinct(parts["mark"], parts["body"])
    if parts["pattern"] == "stripe":
        return [Shape(mark, polygon((-1.1, 0.1), (1.1, 0.1), (1.1, 0.26), (-1.1, 0.26)), hull)]
    if parts["pattern"] == "checks":
        squares = [(x * 0.16, 0.0 if x % 2 else 0.13) for x in range(-7, 7)]
        return [
            Shape(mark, polygon((x, y), (x + 0.16, y), (x + 0.16, y + 0.13), (x, y + 0.13)), hull)
            for x, y in squares
        ]
    if parts["pattern"] == "spots":
        return dots(mark, hull, 0.3, 0.09)
    if parts["pattern"] == "two-tone":
        return [Shape(mark, polygon((-1.1, 0.16), (1.1, 0.16), (1.1, 1), (-1.1, 1)), hull)]
    if parts["pattern"] == "flames":
        return [
            Shape(
                mark,
                polygon(
                    (1.1, -0.1), (0.2, 0.02), (0.6, 0.12), (-0.1, 0.18), (0.5, 0.28), (0.1, 0.36), (1.1, 0.5)
                ),
                hull,
            )
        ]
    return []


def _top(parts: Mapping[str, str]) -> list[Shape]:
    """Return what stands on the roof."""
    heights = {
        "saloon": (-0.1, -0.58),
        "beetle": (-0.06, -0.68),
        "pickup": (0.24, -0.58),
        "van": (-0.1, -0.64),
        "bus": (-0.1, -0.7),
        "lorry": (0.54, -0.5),
        "tractor": (-0.24, -0.88),
    }
    if parts["top"] == "none" or parts["build"] not in heights:
        return []
    (x, y), colour = heights[parts["build"]], parts["top_colour"]
    if parts["top"] == "light":
        return [
            Shape(
                colour,
                curve((x - 0.13, y + 0.04), (x - 0.1, y - 0.18), (x + 0.1, y - 0.18), (x + 0.13, y + 0.04)),
            )
        ]
    if parts["top"] == "sign":
        return [
            Shape(
                colour,
                polygon((x - 0.24, y - 0.2), (x + 0.24, y - 0.2), (x + 0.24, y + 0.04), (x - 0.24, y + 0.04)),
            ),
            *bars("ink", polygon((x - 0.2, y - 0.14), (x + 0.2, y - 0.04)), 4),
        ]
    if parts["top"] == "ladder":
        rails = [stroke((x - 0.6, y - dy), (x + 0.5, y - dy), width=0.05) for dy in (0.04, 0.2)]
        rungs = [
            stroke((x + dx, y - 0.02), (x + dx, y - 0.22), width=0.04) for dx in (-0.5, -0.3, -0.1, 0.1, 0.3)
        ]
        return [Shape(colour, outline) for outline in (*rails, *rungs)]
    return [
        Shape(
            "dark brown",
            polygon((x - 0.34, y - 0.06), (x + 0.3, y - 0.06), (x + 0.3, y + 0.02), (x - 0.34, y + 0.02)),
        ),
        Shape(
            colour,
            polygon((x - 0.26, y - 0.24), (x + 0.06, y - 0.24), (x + 0.06, y - 0.06), (x - 0.26, y - 0.06)),
        ),
        Shape(
            "brown",
            polygon((x + 0.08, y - 0.18), (x + 0.24, y - 0.18), (x + 0.24, y - 0.06), (x + 0.08, y - 0.06)),
        ),
    ]
