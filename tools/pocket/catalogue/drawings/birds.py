"""Birds that face right, from colours and marks."""

from __future__ import annotations

from collections.abc import Mapping

from pleinair.tools.pocket.catalogue.drawings.geometry import (
    Points,
    Shape,
    bars,
    curve,
    dots,
    ellipse,
    moved,
    polygon,
    stroke,
)
from pleinair.tools.pocket.catalogue.drawings.palette import distinct

MARKS = {  # the first choice is the default
    "crest": ("none", "fan", "peak", "plume", "crown"),
    "bill": ("short", "long", "curved", "hooked", "flat", "huge"),
    "build": ("perched", "wader", "swimmer", "upright"),
    "tail": ("short", "long", "fork", "train"),
    "wings": ("plain", "barred", "spotted"),
    "face": ("plain", "mask", "cap", "cheek"),
}
PARTS = (
    "body",
    "breast",
    "head",
    "wing",
    "tail_colour",
    "bill_colour",
    "crest_colour",
    "face_colour",
    "legs",
)

_HEADS = {"perched": (0.42, -0.4, 0.3), "wader": (0.52, -0.66, 0.19), "swimmer": (0.5, -0.5, 0.24)}
_HEADS["upright"] = (0.16, -0.58, 0.3)


def draw_bird(parts: Mapping[str, str]) -> list[Shape]:
    """Return the shapes of a bird, back to front; `parts` has every key of `PARTS` and `MARKS`."""
    x, y, r = _HEADS[parts["build"]]
    torso, shapes = _torso(parts)
    head = ellipse(x, y, r, r * 0.94)
    return [
        *_tail(parts),
        *_legs(parts),
        *shapes,
        *_wing(parts, torso),
        *_crest(parts, x, y, r),
        *_bill(parts, x, y, r),
        Shape(parts["head"], head),
        *_face(parts, head, x, y, r),
        Shape("white", ellipse(x + 0.3 * r, y - 0.12 * r, 0.24 * r)),
        Shape("ink", ellipse(x + 0.33 * r, y - 0.12 * r, 0.17 * r)),
    ]


def _torso(parts: Mapping[str, str]) -> tuple[Points, list[Shape]]:
    """Return the outline of the body, and its shapes with breast and neck."""
    build, body, breast = parts["build"], parts["body"], parts["breast"]
    if build == "wader":
        torso = curve((-0.62, -0.02), (-0.2, -0.3), (0.3, -0.2), (0.42, 0.1), (0.1, 0.34), (-0.4, 0.24))
        neck = stroke((0.26, 0.0), (0.5, -0.16), (0.32, -0.42), (0.5, -0.66), width=0.3, end=0.17)
        return torso, [Shape(body, neck), Shape(body, torso), Shape(breast, ellipse(0.24, 0.16, 0.22), torso)]
    if build == "swimmer":
        torso = curve(
            (-0.95, -0.1), (-0.5, 0.0), (0.2, -0.02), (0.62, 0.2), (0.4, 0.62), (-0.4, 0.64), (-0.8, 0.3)
        )
        neck = stroke((0.36, 0.4), (0.62, 0.1), (0.42, -0.2), (0.5, -0.5), width=0.42, end=0.26)
        return torso, [
            Shape(body, torso),
            Shape(breast, ellipse(0.42, 0.42, 0.36), torso),
            Shape(parts["head"], neck),
        ]
    if build == "upright":
        torso = curve((0.0, -0.6), (0.42, -0.1), (0.44, 0.5), (0.1, 0.86), (-0.34, 0.6), (-0.4, 0.0))
        return torso, [Shape(body, torso), Shape(breast, ellipse(0.22, 0.24, 0.27, 0.55), torso)]
    torso = curve(
        (-0.7, 0.12), (-0.3, -0.3), (0.3, -0.55), (0.66, -0.1), (0.5, 0.42), (0.0, 0.62), (-0.46, 0.46)
    )
    return torso, [Shape(body, torso), Shape(breast, ellipse(0.4, 0.26, 0.42, 0.5, -0.4), torso)]


def _wing(parts: Mapping[str, str], torso: Points) -> list[Shape]:
    if parts["build"] == "upright":
        wing = curve((-0.18, -0.3), (0.12, 0.0), (0.06, 0.5), (-0.28, 0.82), (-0.4, 0.4), (-0.38, 0.0))
    elif parts["build"] == "wader":
        wing = curve((0.2, -0.12), (0.16, 0.14), (-0.3, 0.2), (-0.78, 0.14), (-0.4, -0.16))
    elif parts["build"] == "swimmer":
        wing = curve((0.3, 0.14), (0.2, 0.44), (-0.3, 0.46), (-0.9, 0.06), (-0.4, 0.02))
    else:
        wing = curve((0.26, -0.12), (0.2, 0.22), (-0.2, 0.42), (-0.86, 0.34), (-0.44, 0.0))
    shapes = [Shape(distinct(parts["wing"], parts["body"]), wing)]
    mark = parts["tail_colour"] if parts["tail_colour"] != parts["wing"] else parts["breast"]
    if parts["wings"] == "barred":
        shapes += bars(mark, wing, 4, share=0.38)
    if parts["wings"] == "spotted":
        shapes += dots(mark, wing, 0.24, 0.075)
    return shapes


def _tail(parts: Mapping[str, str]) -> list[Shape]:
    colour, build = parts["tail_colour"], parts["build"]
    if build == "upright":
        return [Shape(colour, polygon((-0.3, 0.5), (-0.02, 0.7), (-0.3, 1.0), (-0.5, 0.94)))]
    x, y = {"wader": (-0.5, 0.06), "swimmer": (-0.7, 0.1)}.get(build, (-0.5, 0.24))
    outlines = {
        "short": [
            polygon((x + 0.15, y - 0.14), (x - 0.42, y - 0.04), (x - 0.38, y + 0.2), (x + 0.15, y + 0.18))
        ],
        "long": [
            curve(
                (x + 0.2, y - 0.12),
                (x - 0.3, y + 0.2),
                (x - 0.42, y + 0.72),
                (x - 0.22, y + 0.7),
                (x, y + 0.3),
            )
        ],
        "fork": [
            stroke((x + 0.15, y), (x - 0.2, y - 0.02), (x - 0.5, y - 0.2), width=0.2, end=0.03),
            stroke((x + 0.15, y + 0.05), (x - 0.2, y + 0.16), (x - 0.5, y + 0.3), width=0.2, end=0.03),
        ],
        "train": [ellipse(-0.42, -0.08, 0.58, 0.8, -0.35)],
    }[parts["tail"]]
    shapes = [Shape(colour, outline) for outline in outlines]
    if parts["tail"] == "train":
        for px, py in ((-0.86, -0.1), (-0.76, -0.46), (-0.5, -0.7), (-0.2, -0.74), (-0.6, 0.26)):
            shapes += [Shape("gold", ellipse(px, py, 0.11)), Shape("blue", ellipse(px, py, 0.06))]
    return shapes


def _legs(parts: Mapping[str, str]) -> list[Shape]:
    colour, build = parts["legs"], parts["build"]
    if build == "swimmer":
        return []
    if build == "wader":
        return [Shape(colour, stroke((x, 0.2), (x, 0.98), width=0.06)) for x in (-0.1, 0.12)]
    if build == "upright":
        return [Shape(colour, ellipse(x, 0.9, 0.14, 0.07)) for x in (-0.04, 0.2)]
    return [Shape(colour, stroke((x, 0.5), (x, 0.96), width=0.07)) for x in (-0.08, 0.18)]


def _crest(parts: Mapping[str, str], x: float, y: float, r: float) -> list[Shape]:
    colour = parts["crest_colour"]
    if parts["crest"] == "fan":
        shapes = []
        for turn in (-1.05, -0.65, -0.25, 0.15, 0.55):
            feather = moved(ellipse(0, -1.35, 0.24, 0.75), x - 0.1 * r, y, r, turn)
            shapes += [
                Shape(colour, feather),
                Shape("ink", moved(ellipse(0, -1.95, 0.17), x - 0.1 * r, y, r, turn)),
            ]
        return shapes
    if parts["crest"] == "peak":
        return [
            Shape(
                colour,
                polygon((x - 0.95 * r, y - 0.1), (x - 0.9 * r, y - 1.9 * r), (x + 0.6 * r, y - 0.7 * r)),
            )
        ]
    if parts["crest"] == "plume":
        return [
            Shape(
                colour,
                stroke((x, y - 0.8 * r), (x + 0.1 * r, y - 1.5 * r), (x + 0.6 * r, y - 1.7 * r), width=0.06),
            ),
            Shape(colour, ellipse(x + 0.62 * r, y - 1.68 * r, 0.32 * r)),
        ]
    if parts["crest"] == "crown":
        shapes = []
        for turn in (-0.8, -0.4, 0.0, 0.4):
            line = stroke((0, -0.8), (0, -1.9), width=0.12)
            shapes += [
                Shape(colour, moved(line, x, y, r, turn)),
                Shape(colour, moved(ellipse(0, -1.9, 0.16), x, y, r, turn)),
            ]
        return shapes
    return []


def _bill(parts: Mapping[str, str], x: float, y: float, r: float) -> list[Shape]:
    base = x + 0.8 * r
    outlines = {
        "short": polygon((base, y - 0.3 * r), (base + 0.24, y + 0.08), (base, y + 0.4 * r)),
        "long": polygon((base, y - 0.2 * r), (base + 0.52, y + 0.06), (base, y + 0.3 * r)),
        "curved": stroke(
            (base - 0.03, y), (base + 0.24, y + 0.04), (base + 0.42, y + 0.3), width=0.14, end=0.02
        ),
        "hooked": curve(
            (base - 0.05, y - 0.4 * r),
            (base + 0.22, y - 0.06),
            (base + 0.2, y + 0.2),
            (base + 0.1, y + 0.08),
            (base - 0.05, y + 0.3 * r),
        ),
        "flat": curve(
            (base - 0.05, y - 0.2 * r),
            (base + 0.2, y + 0.02),
            (base + 0.4, y + 0.02),
            (base + 0.38, y + 0.14),
            (base, y + 0.5 * r),
        ),
        "huge": curve(
            (base - 0.06, y - 0.7 * r),
            (base + 0.3, y - 0.6 * r),
            (base + 0.56, y + 0.1),
            (base + 0.46, y + 0.16),
            (base - 0.05, y + 0.6 * r),
        ),
    }
    shapes = [Shape(parts["bill_colour"], outlines[parts["bill"]])]
    if parts["bill"] == "huge":
        shapes.append(Shape("ink", ellipse(base + 0.52, y + 0.08, 0.09), outlines["huge"]))
    return shapes


def _face(parts: Mapping[str, str], head: Points, x: float, y: float, r: float) -> list[Shape]:
    colour = parts["face_colour"]
    if parts["face"] == "mask":
        return [Shape(colour, ellipse(x + 0.35 * r, y - 0.05 * r, 0.75 * r, 0.34 * r), head)]
    if parts["face"] == "cap":
        return [Shape(colour, ellipse(x, y - 0.75 * r, 1.1 * r, 0.6 * r), head)]
    if parts["face"] == "cheek":
        return [Shape(colour, ellipse(x + 0.15 * r, y + 0.38 * r, 0.42 * r), head)]
    return []
