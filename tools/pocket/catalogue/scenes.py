"""Scenes of the catalogue world, placed at random from a seed, and their renderer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pleinair.tools.pocket.catalogue.backgrounds import BACKGROUNDS, paint_background, paint_weather
from pleinair.tools.pocket.catalogue.drawings.geometry import Points, Shape, mirrored, moved
from pleinair.tools.pocket.catalogue.drawings.painting import paint
from pleinair.tools.pocket.catalogue.species import Species

SIZE = 96
SUPERSAMPLING = 3
RELATIONS = ("beside", "left of", "right of", "above", "under", "on", "in front of", "behind")
SIZES = {"small": 0.72, "": 1.0, "big": 1.26}  # scale by the adjective
Box = tuple[float, float, float, float]
Place = tuple[float, float, float]  # centre and scale


@dataclass(frozen=True, slots=True)
class Subject:
    """Species in a scene, `count` times; `size` is a key of `SIZES`."""

    species: Species
    count: int = 1
    size: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """Drawn species: centre and scale as shares of the frame, tilt in radians, flipped left to right."""

    species: Species
    x: float
    y: float
    scale: float
    tilt: float
    flip: bool
    subject: int  # place in the scene's subjects


@dataclass(frozen=True, slots=True)
class Scene:
    """One to three subjects, and how each stands to the one before; `figures` are back to front."""

    subjects: tuple[Subject, ...]
    relations: tuple[str, ...]  # keys of `RELATIONS`, one fewer than subjects
    background: str
    light: str
    weather: str
    seed: int
    figures: tuple[Figure, ...]


def place_scene(
    rng: random.Random,
    subjects: Sequence[Subject],
    relations: Sequence[str] = (),
    *,
    background: str = "",
    light: str = "day",
    weather: str = "clear",
) -> Scene:
    """Place one to three subjects in a scene; relations that are left out are "beside".

    Raises:
        ValueError: no subject or more than three, or an unknown relation.
    """
    if not 1 <= len(subjects) <= 3:
        raise ValueError(f"a scene has one to three subjects, got {len(subjects)}")
    between = (*relations, *["beside"] * (len(subjects) - 1 - len(relations)))
    if unknown := set(between) - set(RELATIONS):
        raise ValueError(f"unknown relations: {sorted(unknown)}")
    places = _places(between)
    figures = [
        figure
        for number, (subject, place) in enumerate(zip(subjects, places, strict=True))
        for figure in _figures(rng, subject, place, number)
    ]
    back_to_front = sorted(figures, key=lambda figure: _depth(between, figure.subject))
    background = background or rng.choice(tuple(BACKGROUNDS))
    seed = rng.randrange(2**31)
    return Scene(tuple(subjects), between, background, light, weather, seed, tuple(back_to_front))


def _places(relations: Sequence[str]) -> list[Place]:
    """Return the place of each subject, first to last."""
    if not relations:
        return [(0.5, 0.52, 0.74)]
    if len(relations) == 1:
        return list(_PAIRS[relations[0]])
    if relations[0] in ("above", "under", "on", "in front of", "behind"):
        first, second = ((x * 0.62, y, scale * 0.82) for x, y, scale in _PAIRS[relations[0]])
        return [first, second, (0.79, 0.62, 0.38)]
    row = [(0.19, 0.56, 0.36), (0.5, 0.56, 0.36), (0.81, 0.56, 0.36)]
    if relations[0] == "right of":
        row[0], row[1] = row[1], row[0]
    return row


_PAIRS: dict[str, tuple[Place, Place]] = {
    "beside": ((0.27, 0.55, 0.49), (0.73, 0.55, 0.49)),
    "left of": ((0.27, 0.55, 0.49), (0.73, 0.55, 0.49)),
    "right of": ((0.73, 0.55, 0.49), (0.27, 0.55, 0.49)),
    "above": ((0.5, 0.25, 0.44), (0.5, 0.74, 0.46)),
    "under": ((0.5, 0.75, 0.46), (0.5, 0.26, 0.44)),
    "on": ((0.5, 0.27, 0.4), (0.5, 0.68, 0.56)),
    "in front of": ((0.36, 0.7, 0.44), (0.6, 0.44, 0.66)),
    "behind": ((0.6, 0.44, 0.66), (0.36, 0.7, 0.44)),
}


def _depth(relations: Sequence[str], subject: int) -> int:
    """Return 0 for what is behind, 1 for the rest."""
    if relations and relations[0] == "in front of":
        return int(subject != 1)
    if relations and relations[0] == "behind":
        return int(subject != 0)
    return 1 if subject else 0


def _figures(rng: random.Random, subject: Subject, place: Place, number: int) -> list[Figure]:
    x, y, scale = place
    scale *= SIZES[subject.size] * rng.uniform(0.95, 1.05)
    scale = min(scale, 0.92)
    offsets = {1: (0.0,), 2: (-0.5, 0.5), 3: (-0.68, 0.0, 0.68)}[subject.count]
    part = {1: 1.0, 2: 0.62, 3: 0.48}[subject.count]
    flip = rng.random() < 0.5
    jitter = 0.03 * scale
    return [
        Figure(
            subject.species,
            x + offset * scale * (0.62 if subject.count == 2 else 0.74) + rng.uniform(-jitter, jitter),
            y + (0.05 * scale if index % 2 else 0) + rng.uniform(-jitter, jitter),
            scale * part,
            rng.uniform(-0.08, 0.08),
            flip,
            number,
        )
        for index, offset in enumerate(offsets)
    ]


def _shapes(figure: Figure) -> list[Shape]:
    return [
        Shape(
            shape.colour,
            _posed(shape.points, figure),
            None if shape.clip is None else _posed(shape.clip, figure),
        )
        for shape in figure.species.shapes
    ]


def _posed(points: np.ndarray, figure: Figure) -> np.ndarray:
    turned = mirrored(points) if figure.flip else points
    return moved(turned, figure.x, figure.y, figure.scale / 2, figure.tilt)


def boxes(scene: Scene) -> list[Box]:
    """Return (x0, y0, x1, y1) in 0..1 of each figure, in the order of `scene.figures`."""
    return [_box(figure) for figure in scene.figures]


def outlines(figure: Figure) -> list[Points]:
    """Return the outlines that a figure fills, [n, 2] as shares of the frame."""
    return [shape.points for shape in _shapes(figure) if shape.clip is None]


def _box(figure: Figure) -> Box:
    points = np.concatenate(outlines(figure))
    (x0, y0), (x1, y1) = points.min(axis=0).clip(0, 1), points.max(axis=0).clip(0, 1)
    return float(x0), float(y0), float(x1), float(y1)


def render(scene: Scene, size: int = SIZE) -> Image.Image:
    """Return the scene as an antialiased RGB image of `size` × `size` pixels."""
    large = size * SUPERSAMPLING
    canvas = paint_background(scene.background, scene.light, scene.weather, scene.seed, large)
    for figure in scene.figures:
        paint(canvas, _shapes(figure), (0.0, 0.0), large)
    paint_weather(canvas, scene.weather, scene.seed)
    return canvas.reduce(SUPERSAMPLING)
