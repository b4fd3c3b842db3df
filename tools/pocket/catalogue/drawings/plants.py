"""Flowers on their stems, mushrooms and fruits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pleinair.tools.pocket.catalogue.drawings.geometry import (
    Points,
    Shape,
    bars,
    curve,
    dots,
    ellipse,
    moved,
    polygon,
    ring,
    stroke,
)
from pleinair.tools.pocket.catalogue.drawings.palette import distinct

FLOWER_MARKS = {
    "bloom": ("daisy", "rays", "tulip", "bell", "star", "globe", "spike", "trumpet", "rose"),
    "petal_mark": ("plain", "tipped", "throat", "spotted"),
    "heart": ("plain", "large"),
}
FLOWER_PARTS = ("petal", "mark", "heart_colour", "leaf")
MUSHROOM_MARKS = {
    "cap": ("dome", "cone", "flat", "funnel", "honeycomb", "ball"),
    "pattern": ("plain", "spotted", "banded", "rim"),
    "stem_mark": ("plain", "ringed", "thick"),
}
MUSHROOM_PARTS = ("cap_colour", "mark", "stem", "gills")
FRUIT_MARKS = {
    "build": ("round", "long", "pear", "cluster", "crowned", "slice", "halved", "berry"),
    "pattern": ("plain", "spotted", "striped", "blush"),
    "leaf_mark": ("leaf", "none", "crown"),
}
FRUIT_PARTS = ("skin", "mark", "flesh", "leaf")


def draw_flower(parts: Mapping[str, str]) -> list[Shape]:
    """Return the shapes of a flower, back to front; `parts` has each key of `FLOWER_PARTS` and its marks."""
    leaf = parts["leaf"]
    stalk = [
        Shape("stem", stroke((0.0, -0.2), (0.03, 0.4), (0.0, 1.0), width=0.09)),
        Shape(leaf, moved(ellipse(0.3, 0, 0.3, 0.11), 0.02, 0.66, turn=-0.5)),
        Shape(leaf, moved(ellipse(-0.3, 0, 0.3, 0.11), 0.0, 0.82, turn=0.5)),
    ]
    return [*stalk, *_BLOOMS[parts["bloom"]](parts)]


def _petals(parts: Mapping[str, str], count: int, length: float, width: float, at: float) -> list[Shape]:
    shapes: list[Shape] = []
    for (x, y), angle in ring(0, -0.3, count, at, start=-np.pi / 2):
        petal = ellipse(x, y, length, width, angle)
        shapes.append(
            Shape(
                parts["petal"] if count < 9 or len(shapes) % 2 else distinct(parts["petal"], parts["petal"]),
                petal,
            )
        )
        tip_x, tip_y = x + 0.75 * length * np.cos(angle), y + 0.75 * length * np.sin(angle)
        if parts["petal_mark"] == "tipped":
            shapes.append(Shape(parts["mark"], ellipse(tip_x, tip_y, length * 0.6), petal))
        if parts["petal_mark"] == "spotted":
            shapes.append(Shape(parts["mark"], ellipse(x, y, 0.06)))
    if parts["petal_mark"] == "throat":
        shapes.append(Shape(parts["mark"], ellipse(0, -0.3, at + length * 0.25)))
    return shapes


def _heart(parts: Mapping[str, str], radius: float) -> list[Shape]:
    radius *= 1.6 if parts["heart"] == "large" else 1.0
    return [
        Shape(parts["heart_colour"], ellipse(0, -0.3, radius)),
        Shape(f"dark {parts['heart_colour']}", ellipse(0, -0.3, radius * 0.45)),
    ]


def _daisy(parts: Mapping[str, str]) -> list[Shape]:
    return [*_petals(parts, 6, 0.3, 0.2, 0.36), *_heart(parts, 0.19)]


def _rays(parts: Mapping[str, str]) -> list[Shape]:
    return [*_petals(parts, 14, 0.28, 0.1, 0.4), *_heart(parts, 0.21)]


def _star(parts: Mapping[str, str]) -> list[Shape]:
    return [*_petals(parts, 5, 0.36, 0.16, 0.34), *_heart(parts, 0.11)]


def _rose(parts: Mapping[str, str]) -> list[Shape]:
    petal = parts["petal"]
    shapes = [Shape(petal, ellipse(x, y, 0.34)) for (x, y), _ in ring(0, -0.32, 6, 0.28)]
    for number, radius in enumerate((0.4, 0.29, 0.18, 0.09)):
        shapes.append(
            Shape(
                petal if number % 2 else f"dark {petal}", ellipse(0.02 * number, -0.32, radius, radius * 0.9)
            )
        )
    if parts["petal_mark"] != "plain":
        shapes += [Shape(parts["mark"], ellipse(x, y, 0.08)) for (x, y), _ in ring(0, -0.32, 6, 0.5)]
    return shapes


def _tulip(parts: Mapping[str, str]) -> list[Shape]:
    cup = curve(
        (-0.42, -0.86),
        (-0.2, -0.62),
        (0.0, -0.94),
        (0.2, -0.62),
        (0.42, -0.86),
        (0.44, -0.3),
        (0.0, 0.06),
        (-0.44, -0.3),
    )
    shapes = [Shape(parts["petal"], cup), Shape(f"dark {parts['petal']}", ellipse(0, -0.36, 0.18, 0.42), cup)]
    if parts["petal_mark"] == "tipped":
        shapes.append(Shape(parts["mark"], polygon((-1, -1), (1, -1), (1, -0.68), (-1, -0.68)), cup))
    if parts["petal_mark"] == "throat":
        shapes.append(Shape(parts["mark"], ellipse(0, 0.0, 0.5, 0.26), cup))
    if parts["petal_mark"] == "spotted":
        shapes += dots(parts["mark"], cup, 0.22, 0.06)
    return shapes


def _bell(parts: Mapping[str, str]) -> list[Shape]:
    shapes = [
        Shape("stem", stroke((0.0, 0.0), (0.05, -0.7), (0.4, -0.86), width=0.07)),
        Shape("stem", stroke((0.0, -0.1), (-0.2, -0.5), (-0.44, -0.6), width=0.06)),
    ]
    for x, y, scale in ((0.42, -0.5, 1.0), (-0.46, -0.26, 0.9), (0.0, -0.28, 0.8)):
        bell = moved(
            curve(
                (0, -0.36),
                (0.2, -0.2),
                (0.34, 0.26),
                (0.12, 0.18),
                (0, 0.3),
                (-0.12, 0.18),
                (-0.34, 0.26),
                (-0.2, -0.2),
            ),
            x,
            y,
            scale,
        )
        shapes.append(Shape(parts["petal"], bell))
        if parts["petal_mark"] != "plain":
            shapes.append(Shape(parts["mark"], ellipse(x, y + 0.26 * scale, 0.4, 0.14), bell))
    return shapes


def _globe(parts: Mapping[str, str]) -> list[Shape]:
    ball = ellipse(0, -0.36, 0.52)
    shapes = [
        Shape(parts["petal"], stroke((0, -0.36), (x, y), width=0.14))
        for (x, y), _ in ring(0, -0.36, 18, 0.62)
    ]
    shapes += [Shape(parts["petal"], ball), *dots(distinct(parts["mark"], parts["petal"]), ball, 0.2, 0.06)]
    return shapes


def _spike(parts: Mapping[str, str]) -> list[Shape]:
    shapes = [Shape("stem", stroke((0, 0.2), (0, -0.96), width=0.07))]
    for row in range(6):
        y, spread = 0.1 - 0.2 * row, 0.3 - 0.036 * row
        for side in (-1, 0, 1):
            bud = ellipse(side * spread, y + 0.07 * abs(side), 0.16 - 0.012 * row, 0.12)
            shapes.append(Shape(parts["petal"], bud))
            if parts["petal_mark"] != "plain":
                shapes.append(Shape(parts["mark"], ellipse(side * spread, y + 0.07 * abs(side), 0.06)))
    return shapes


def _trumpet(parts: Mapping[str, str]) -> list[Shape]:
    shapes = _petals(parts, 6, 0.34, 0.2, 0.34)
    cup = ellipse(0, -0.3, 0.27)
    frill = [Shape(parts["heart_colour"], ellipse(x, y, 0.09)) for (x, y), _ in ring(0, -0.3, 9, 0.25)]
    return [
        *shapes,
        *frill,
        Shape(parts["heart_colour"], cup),
        Shape(f"dark {parts['heart_colour']}", ellipse(0, -0.3, 0.16)),
    ]


_BLOOMS = {
    "daisy": _daisy,
    "rays": _rays,
    "tulip": _tulip,
    "bell": _bell,
    "star": _star,
    "globe": _globe,
    "spike": _spike,
    "trumpet": _trumpet,
    "rose": _rose,
}


def draw_mushroom(parts: Mapping[str, str]) -> list[Shape]:
    """Return the shapes of a mushroom, back to front; `parts` has `MUSHROOM_PARTS` and its marks."""
    thick = 0.2 if parts["stem_mark"] == "thick" else 0.0
    stem = curve(
        (-0.17 - thick * 0.4, -0.1),
        (0.17 + thick * 0.4, -0.1),
        (0.2 + thick * 1.4, 0.7),
        (0.16 + thick, 0.94),
        (-0.16 - thick, 0.94),
        (-0.2 - thick * 1.4, 0.7),
    )
    shapes = [Shape(parts["stem"], stem)]
    if parts["stem_mark"] == "ringed":
        shapes.append(
            Shape(
                distinct(parts["stem"], parts["stem"]),
                curve((-0.2, 0.22), (0.2, 0.22), (0.34, 0.42), (0.0, 0.34), (-0.34, 0.42)),
            )
        )
    cap = _CAPS[parts["cap"]]
    if parts["cap"] in ("dome", "flat", "cone"):
        edge = float(cap[:, 1].max())
        shapes.append(Shape(parts["gills"], ellipse(0, edge - 0.06, float(cap[:, 0].max()) * 0.86, 0.13)))
    return [*shapes, Shape(parts["cap_colour"], cap), *_cap_pattern(parts, cap)]


def _cap_pattern(parts: Mapping[str, str], cap: Points) -> list[Shape]:
    mark = parts["mark"]
    if parts["cap"] == "honeycomb":
        return dots(distinct(mark, parts["cap_colour"]), cap, 0.24, 0.085)
    if parts["pattern"] == "spotted":
        return dots(mark, cap, 0.34, 0.1)
    if parts["pattern"] == "banded":
        return bars(mark, cap, 3, across=True, share=0.4)
    if parts["pattern"] == "rim":
        low = float(cap[:, 1].max())
        return [Shape(mark, polygon((-1.2, low - 0.2), (1.2, low - 0.2), (1.2, low), (-1.2, low)), cap)]
    return []


_CAPS = {
    "dome": curve((-0.86, 0.06), (-0.76, -0.5), (0.0, -0.92), (0.76, -0.5), (0.86, 0.06), (0.0, 0.02)),
    "cone": curve((-0.6, 0.16), (-0.36, -0.5), (0.0, -0.98), (0.36, -0.5), (0.6, 0.16), (0.0, 0.1)),
    "flat": curve((-0.96, -0.2), (-0.6, -0.5), (0.0, -0.58), (0.6, -0.5), (0.96, -0.2), (0.0, -0.12)),
    "funnel": curve(
        (-0.84, -0.74),
        (-0.4, -0.66),
        (0.0, -0.6),
        (0.4, -0.66),
        (0.84, -0.74),
        (0.4, -0.16),
        (0.16, 0.2),
        (-0.16, 0.2),
        (-0.4, -0.16),
    ),
    "honeycomb": curve((-0.5, 0.0), (-0.54, -0.5), (0.0, -0.98), (0.54, -0.5), (0.5, 0.0), (0.0, 0.16)),
    "ball": ellipse(0, -0.1, 0.76, 0.72),
}


def draw_fruit(parts: Mapping[str, str]) -> list[Shape]:
    """Return the shapes of a fruit, back to front; `parts` has `FRUIT_PARTS` and its marks."""
    build = parts["build"]
    if build in ("cluster", "berry"):
        return _draw_cluster(parts, 10 if build == "cluster" else 3)
    skin = _SKINS[build]
    shapes = [
        *_fruit_top(parts, float(skin[:, 1].min())),
        Shape(parts["skin"], skin),
        *_skin_pattern(parts, skin),
    ]
    if build == "slice":
        flesh = (skin - np.array([0, -0.3])) * 0.84 + np.array([0, -0.36])
        seeds = [
            Shape("ink", ellipse(x, y, 0.045, 0.075))
            for x, y in ((-0.4, -0.1), (0, -0.1), (0.4, -0.1), (-0.2, 0.14), (0.2, 0.14))
        ]
        shapes += [Shape(parts["flesh"], flesh), *seeds]
    if build == "halved":
        shapes += [
            Shape(parts["flesh"], skin * 0.82),
            *(Shape(parts["mark"], moved(ellipse(0.34, 0, 0.2, 0.06), turn=a)) for _, a in ring(0, 0, 8, 1)),
        ]
    else:
        shapes.append(Shape("white", ellipse(-0.26, -0.28, 0.06, 0.12, 0.5), skin))
    return shapes


def _fruit_top(parts: Mapping[str, str], top: float) -> list[Shape]:
    leaf = parts["leaf"]
    if parts["leaf_mark"] == "none":
        return []
    if parts["leaf_mark"] == "crown":
        return [
            Shape(leaf if n % 2 else f"dark {leaf}", moved(ellipse(0, -0.3, 0.1, 0.34), 0, top + 0.1, turn=t))
            for n, t in enumerate((-1.0, 1.0, -0.5, 0.5, 0.0))
        ]
    return [
        Shape("dark brown", stroke((0, top + 0.12), (0.04, top - 0.2), width=0.07)),
        Shape(leaf, moved(ellipse(0.24, 0, 0.24, 0.11), 0.03, top - 0.08, turn=-0.4)),
    ]


def _skin_pattern(parts: Mapping[str, str], skin: Points) -> list[Shape]:
    mark = distinct(parts["mark"], parts["skin"])
    if parts["pattern"] == "spotted":
        return dots(mark, skin, 0.24, 0.05)
    if parts["pattern"] == "striped":
        return bars(mark, skin, 5, share=0.4)
    if parts["pattern"] == "blush":
        return [Shape(mark, ellipse(0.4, 0.1, 0.5, 0.7), skin)]
    return []


def _draw_cluster(parts: Mapping[str, str], count: int) -> list[Shape]:
    if count == 3:
        places, radius = [(-0.34, 0.42), (0.36, 0.36)], 0.36
        stalks = [Shape("stem", stroke((x, y - 0.2), (0.1, -0.7), width=0.06)) for x, y in places]
        top = [Shape(parts["leaf"], moved(ellipse(0.3, 0, 0.3, 0.13), 0.1, -0.7, turn=0.2))]
    else:
        rows = ((-0.38, 4), (-0.08, 3), (0.22, 3), (0.5, 2), (0.76, 1))
        places, radius = [((n - (k - 1) / 2) * 0.38, y) for y, k in rows for n in range(k)], 0.22
        stalks, top = (
            [Shape("dark brown", stroke((0, -0.4), (0.04, -0.9), width=0.07))],
            [Shape(parts["leaf"], ellipse(0.32, -0.7, 0.3, 0.18, -0.3))],
        )
    shapes = [*stalks, *top]
    for x, y in places:
        grain = ellipse(x, y, radius)
        shapes += [
            Shape(parts["skin"], grain),
            Shape(f"dark {parts['skin']}", ellipse(x + 0.08, y + 0.09, radius * 0.9), ellipse(x, y, radius)),
            Shape(parts["skin"], ellipse(x - 0.03, y - 0.03, radius * 0.84)),
        ]
        if parts["pattern"] == "blush":
            shapes.append(Shape(parts["mark"], ellipse(x + radius * 0.5, y, radius * 0.6), grain))
        shapes.append(Shape("white", ellipse(x - radius * 0.35, y - radius * 0.35, radius * 0.16)))
    return shapes


_SKINS = {
    "round": curve(
        (0, -0.66), (0.5, -0.7), (0.8, -0.1), (0.5, 0.7), (0, 0.72), (-0.5, 0.7), (-0.8, -0.1), (-0.5, -0.7)
    ),
    "long": curve(
        (-0.9, -0.46),
        (-0.74, -0.5),
        (-0.2, 0.06),
        (0.5, 0.2),
        (0.92, -0.1),
        (0.98, 0.04),
        (0.5, 0.6),
        (-0.3, 0.54),
        (-0.8, 0.0),
    ),
    "pear": curve(
        (0, -0.74),
        (0.22, -0.6),
        (0.34, -0.1),
        (0.66, 0.4),
        (0.3, 0.84),
        (-0.3, 0.84),
        (-0.66, 0.4),
        (-0.34, -0.1),
        (-0.22, -0.6),
    ),
    "crowned": ellipse(0, 0.24, 0.52, 0.7),
    "slice": polygon(
        *((float(0.95 * np.cos(a)), float(-0.4 + 0.95 * np.sin(a))) for a in np.linspace(0, np.pi, 24))
    ),
    "halved": ellipse(0, 0, 0.78),
}
