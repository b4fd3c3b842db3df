"""Labelled images of the catalogue world, for the models that look at images.

Among the species are strangers: plain looks of a kind in one colour, invented looks, and impostors, which are
like a species except for two details. An impostor always differs visibly from every species.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pleinair.tools.pocket.catalogue.backgrounds import BACKGROUNDS, LIGHTS, WEATHERS
from pleinair.tools.pocket.catalogue.painting import paint
from pleinair.tools.pocket.catalogue.palette import NAMED
from pleinair.tools.pocket.catalogue.scenes import (
    RELATIONS,
    SIZE,
    Figure,
    Scene,
    Subject,
    outlines,
    place_scene,
    render,
)
from pleinair.tools.pocket.catalogue.species import KINDS, SPECIES, Species, invent, plain
from pleinair.tools.pocket.training.images import CELL, Rng, Sample

TAUGHT = tuple(species for species in SPECIES if species.tier != "novel")
VISIBLE = 6.0  # least mean difference, in 1/255, of two looks at 16 × 16 pixels; of two species it is 5.5
_THUMBNAIL = 64


def _thumbnail(species: Species) -> NDArray[np.float32]:
    """Draw a look before grey, float32 [16, 16, 3] in 0..255."""
    canvas = Image.new("RGB", (_THUMBNAIL, _THUMBNAIL), (128, 128, 128))
    paint(canvas, species.shapes, (_THUMBNAIL / 2, _THUMBNAIL / 2), _THUMBNAIL / 2 - 1)
    return np.asarray(canvas.reduce(4), dtype=np.float32)


@cache
def _thumbnails(kind: str) -> NDArray[np.float32]:
    return np.stack([_thumbnail(species) for species in SPECIES if species.kind == kind])


def difference(species: Species) -> float:
    """Return the mean difference of a look from that of the most similar species of its kind, 0..255."""
    return float(np.abs(_thumbnails(species.kind) - _thumbnail(species)).mean((1, 2, 3)).min())


def impostor(rng: Rng, species: Species) -> Species:
    """Return the species with two details exchanged, so that it visibly is none of `SPECIES`."""
    while True:
        other = invent(rng, species.kind).looks
        changed = {key: other[key] for key in rng.sample(sorted(species.looks), 2)}
        result = replace(species, name="", tier="novel", looks=MappingProxyType({**species.looks, **changed}))
        if difference(result) >= VISIBLE:
            return result


def stranger(rng: Rng, species: Species) -> Species:
    """Return a look without a name: an impostor of the species, an invented look or a kind's plain look."""
    chance = rng.random()
    if chance < 0.5:
        return impostor(rng, species)
    if chance < 0.7:
        return invent(rng)
    colour = rng.choice(tuple(NAMED)) if rng.random() < 0.8 else ""
    return replace(plain(rng.choice(tuple(KINDS)), colour), name="")


def choose_species(rng: Rng, pool: Sequence[Species], *, strangers: float) -> list[Species]:
    """Choose one to three different species; each is replaced by a stranger with that probability."""
    chosen = rng.sample(list(pool), rng.choices((1, 2, 3), (5, 4, 2))[0])
    return [stranger(rng, s) if rng.random() < strangers else s for s in chosen]


def draw_scene(rng: Rng, species: Sequence[Species]) -> Scene:
    """Draw a scene of one to three species, seldom several of one, or in dim light or bad weather."""
    counts = (12, 1, 1) if len(species) == 1 else (14, 1, 0) if len(species) == 2 else (1, 0, 0)
    subjects = [
        Subject(s, rng.choices((1, 2, 3), counts)[0], rng.choices(("", "small", "big"), (8, 1, 1))[0])
        for s in species
    ]
    relations = [rng.choice(RELATIONS)] if len(species) > 1 else []
    return place_scene(rng, subjects, relations, **_circumstances(rng))


def _circumstances(rng: Rng) -> Mapping[str, str]:
    background = rng.choice(tuple(BACKGROUNDS))
    if background in ("table", "underwater"):
        return {"background": background}
    return {
        "background": background,
        "light": rng.choices(LIGHTS, (8, 1, 1))[0],
        "weather": rng.choices(WEATHERS, (10, 1, 1, 1))[0],
    }


def owner_map(scene: Scene) -> NDArray[np.int8]:
    """Return the owner of each cell of a scene, int8 [24, 24]; what is in front hides what is behind."""
    owner = np.zeros((SIZE // CELL, SIZE // CELL), dtype=np.int8)
    for figure in scene.figures:
        share = _coverage(figure)
        owner[(share > 0.15) & (share < 0.55)] = -1
        owner[share >= 0.55] = figure.subject + 1
    return owner


def _coverage(figure: Figure) -> NDArray[np.float32]:
    """Return the share of each cell that the figure covers, [24, 24] in 0..1."""
    mask = Image.new("L", (SIZE, SIZE), 0)
    draw = ImageDraw.Draw(mask)
    for points in outlines(figure):
        draw.polygon((points * SIZE).ravel().tolist(), fill=255)
    return np.asarray(mask.reduce(CELL), dtype=np.float32) / 255


def make_sample(scene: Scene) -> Sample:
    """Render a scene with its labels."""
    return Sample(np.asarray(render(scene)).copy(), owner_map(scene), scene)
