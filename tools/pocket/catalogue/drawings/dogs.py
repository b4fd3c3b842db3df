"""Dogs that face right."""

from __future__ import annotations

from collections.abc import Mapping

from pleinair.tools.pocket.catalogue.drawings.geometry import (
    Points,
    Shape,
    curve,
    dots,
    ellipse,
    polygon,
    stroke,
)
from pleinair.tools.pocket.catalogue.drawings.palette import distinct

MARKS = {
    "build": ("medium", "long", "tall", "stocky", "fluffy"),
    "ears": ("floppy", "pointed", "long", "bat"),
    "snout": ("medium", "long", "flat"),
    "tail": ("up", "curl", "pompon", "feather"),
    "pattern": ("plain", "spotted", "saddle", "patched", "mask"),
}
PARTS = ("coat", "mark", "belly", "ear_colour", "collar")

_BODIES = {  # left, right, top, bottom of the trunk; length of the legs
    "medium": (-0.62, 0.36, -0.16, 0.34, 0.6),
    "long": (-0.82, 0.42, 0.1, 0.52, 0.34),
    "tall": (-0.56, 0.3, -0.3, 0.16, 0.8),
    "stocky": (-0.62, 0.4, -0.16, 0.46, 0.46),
    "fluffy": (-0.62, 0.36, -0.2, 0.42, 0.52),
}


def draw_dog(parts: Mapping[str, str]) -> list[Shape]:
    """Return the shapes of a dog, back to front; `parts` has every key of `PARTS` and `MARKS`."""
    left, right, top, bottom, _ = _BODIES[parts["build"]]
    trunk = curve(
        (left, top + 0.1),
        (-0.2, top),
        (right, top - 0.06),
        (right + 0.1, bottom - 0.16),
        (0.0, bottom),
        (left + 0.04, bottom - 0.04),
    )
    x, y = right + 0.2, top - 0.36
    far = f"dark {parts['coat']}"
    fur = _fur(parts, trunk) if parts["build"] == "fluffy" else []
    return [
        *_tail(parts, left, top),
        *_legs(parts, far, 0.1),
        *fur,
        Shape(parts["coat"], stroke((right - 0.1, top + 0.2), (x - 0.06, y + 0.1), width=0.46, end=0.3)),
        Shape(parts["coat"], trunk),
        Shape(parts["belly"], ellipse(right - 0.04, bottom - 0.12, 0.3, 0.26), trunk),
        *_pattern(parts, trunk),
        *_legs(parts, parts["coat"], 0.0),
        Shape(parts["collar"], stroke((x - 0.32, y + 0.22), (x + 0.02, y + 0.4), width=0.1)),
        *_head(parts, x, y),
    ]


def _legs(parts: Mapping[str, str], colour: str, shift: float) -> list[Shape]:
    left, right, _, bottom, _ = _BODIES[parts["build"]]
    wide = 0.2 if parts["build"] == "stocky" else 0.15
    legs = [
        stroke((x + shift, bottom - 0.2), (x + shift, 0.94), width=wide) for x in (left + 0.1, right - 0.08)
    ]
    paws = [ellipse(x + shift + 0.04, 0.93, 0.12, 0.06) for x in (left + 0.1, right - 0.08)]
    shapes = [Shape(colour, outline) for outline in (*legs, *paws)]
    if parts["tail"] == "pompon":
        shapes += [Shape(colour, ellipse(x + shift, 0.74, 0.14)) for x in (left + 0.1, right - 0.08)]
    return shapes


def _tail(parts: Mapping[str, str], left: float, top: float) -> list[Shape]:
    colour = parts["coat"]
    if parts["tail"] == "curl":
        return [
            Shape(
                colour,
                stroke(
                    (left + 0.14, top + 0.16),
                    (left - 0.16, top - 0.2),
                    (left + 0.02, top - 0.4),
                    (left + 0.14, top - 0.2),
                    width=0.17,
                    end=0.12,
                ),
            )
        ]
    if parts["tail"] == "pompon":
        return [
            Shape(colour, stroke((left + 0.1, top + 0.16), (left - 0.14, top - 0.2), width=0.08)),
            Shape(colour, ellipse(left - 0.16, top - 0.26, 0.16)),
        ]
    if parts["tail"] == "feather":
        return [
            Shape(
                parts["mark"],
                curve(
                    (left + 0.12, top + 0.06),
                    (left - 0.3, top - 0.14),
                    (left - 0.36, top + 0.3),
                    (left - 0.06, top + 0.34),
                ),
            )
        ]
    return [
        Shape(
            colour,
            stroke(
                (left + 0.12, top + 0.16),
                (left - 0.14, top - 0.02),
                (left - 0.24, top - 0.42),
                width=0.15,
                end=0.05,
            ),
        )
    ]


def _fur(parts: Mapping[str, str], trunk: Points) -> list[Shape]:
    return [Shape(parts["coat"], ellipse(float(px), float(py), 0.15)) for px, py in trunk[::4]]


def _pattern(parts: Mapping[str, str], trunk: Points) -> list[Shape]:
    mark = distinct(parts["mark"], parts["coat"])
    if parts["pattern"] == "spotted":
        return dots(mark, trunk, 0.25, 0.065)
    if parts["pattern"] == "saddle":
        top = float(trunk[:, 1].min())
        return [Shape(mark, ellipse(-0.2, top + 0.06, 0.52, 0.26), trunk)]
    if parts["pattern"] == "patched":
        return [
            Shape(mark, ellipse(-0.42, 0.06, 0.26, 0.3), trunk),
            Shape(mark, ellipse(0.2, -0.06, 0.2, 0.26), trunk),
        ]
    return []


def _head(parts: Mapping[str, str], x: float, y: float) -> list[Shape]:
    coat, mark = parts["coat"], parts["mark"]
    skull = ellipse(x, y, 0.31, 0.29)
    reach = {"medium": 0.3, "long": 0.42, "flat": 0.17}[parts["snout"]]
    snout = curve(
        (x + 0.06, y - 0.06), (x + 0.1 + reach, y + 0.0), (x + 0.12 + reach, y + 0.18), (x + 0.04, y + 0.27)
    )
    masked = parts["pattern"] == "mask"
    shapes = [Shape(coat, ellipse(x, y, 0.42))] if parts["build"] == "fluffy" else []
    shapes += [
        Shape(coat, skull),
        Shape(mark if masked else parts["belly"] if parts["pattern"] == "patched" else coat, snout),
    ]
    if masked:
        shapes.append(Shape(mark, ellipse(x + 0.2, y - 0.02, 0.2, 0.16), skull))
    if parts["tail"] == "pompon":
        shapes.append(Shape(coat, ellipse(x - 0.06, y - 0.28, 0.22)))
    return [
        *_ears(parts, x, y, back=True),
        *shapes,
        Shape("ink", ellipse(x + 0.12 + reach, y + 0.02, 0.075, 0.065)),
        Shape("white", ellipse(x + 0.1, y - 0.08, 0.075)),
        Shape("ink", ellipse(x + 0.115, y - 0.08, 0.055)),
        *_ears(parts, x, y, back=False),
    ]


def _ears(parts: Mapping[str, str], x: float, y: float, *, back: bool) -> list[Shape]:
    colour = parts["ear_colour"]
    if parts["ears"] == "pointed":
        place = x + 0.12 if back else x - 0.14
        return [
            Shape(
                f"dark {colour}" if back else colour,
                polygon((place - 0.14, y - 0.16), (place - 0.04, y - 0.56), (place + 0.16, y - 0.2)),
            )
        ]
    if parts["ears"] == "bat":
        place = x + 0.14 if back else x - 0.16
        return [
            Shape(
                f"dark {colour}" if back else colour,
                curve(
                    (place - 0.12, y - 0.14),
                    (place - 0.16, y - 0.58),
                    (place + 0.06, y - 0.56),
                    (place + 0.14, y - 0.18),
                ),
            )
        ]
    if back:
        return []
    length = 0.62 if parts["ears"] == "long" else 0.36
    return [
        Shape(
            distinct(colour, parts["coat"]),
            curve(
                (x - 0.2, y - 0.26),
                (x - 0.02, y - 0.16),
                (x - 0.06, y - 0.2 + length),
                (x - 0.28, y - 0.2 + length),
                (x - 0.34, y - 0.06),
            ),
        )
    ]
