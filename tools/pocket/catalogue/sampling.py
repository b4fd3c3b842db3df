"""Random scenes of the catalogue world, and looks that are no species but may be taken for one."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pleinair.tools.pocket.catalogue.backgrounds import BACKGROUNDS, LIGHTS, WEATHERS
from pleinair.tools.pocket.catalogue.drawings.painting import paint
from pleinair.tools.pocket.catalogue.drawings.palette import NAMED
from pleinair.tools.pocket.catalogue.scenes import RELATIONS, Scene, Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import KINDS, SPECIES, Species, invent, plain

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


def _visible(draw: Callable[[], Species]) -> Species:
    """Return the first drawn look that visibly is none of `SPECIES`."""
    while difference(look := draw()) < VISIBLE:
        pass
    return look


def impostor(rng: random.Random, species: Species) -> Species:
    """Return the species with two details exchanged, so that it visibly is none of `SPECIES`."""

    def draw() -> Species:
        other = invent(rng, species.kind).looks
        changed = {key: other[key] for key in rng.sample(sorted(species.looks), 2)}
        return replace(species, name="", tier="novel", looks=MappingProxyType({**species.looks, **changed}))

    return _visible(draw)


def stranger(rng: random.Random, species: Species) -> Species:
    """Return a look without a name: an impostor of the species, an invented look or a kind's plain look."""
    chance = rng.random()
    if chance < 0.5:
        return impostor(rng, species)
    return _visible(lambda: invent(rng)) if chance < 0.7 else plain_look(rng)


def plain_look(rng: random.Random) -> Species:
    """Return the plain look of a kind without a name, mostly in another colour; it visibly is no species'."""

    def draw() -> Species:
        colour = rng.choice(tuple(NAMED)) if rng.random() < 0.8 else ""
        return replace(plain(rng.choice(tuple(KINDS)), colour), name="")

    return _visible(draw)


def draw_scene(rng: random.Random, species: Sequence[Species]) -> Scene:
    """Draw a scene of one to three species, seldom several of one, or in dim light or bad weather."""
    counts = (12, 1, 1) if len(species) == 1 else (14, 1, 0) if len(species) == 2 else (1, 0, 0)
    subjects = [
        Subject(s, rng.choices((1, 2, 3), counts)[0], rng.choices(("", "small", "big"), (8, 1, 1))[0])
        for s in species
    ]
    relations = [rng.choice(RELATIONS)] if len(species) > 1 else []
    return place_scene(rng, subjects, relations, **_circumstances(rng))


def _circumstances(rng: random.Random) -> Mapping[str, str]:
    background = rng.choice(tuple(BACKGROUNDS))
    if background in ("table", "underwater"):
        return {"background": background}
    return {
        "background": background,
        "light": rng.choices(LIGHTS, (8, 1, 1))[0],
        "weather": rng.choices(WEATHERS, (10, 1, 1, 1))[0],
    }


@cache
def fingerprint() -> str:
    """Return twelve hexadecimal digits that identify this world: its species and its renderer's output."""
    digest = hashlib.sha256()
    for species in SPECIES:
        digest.update(repr((species.name, species.tier, sorted(species.looks.items()))).encode())
    for number, background in enumerate(BACKGROUNDS):
        group = [Subject(species) for species in SPECIES[number * 13 : number * 13 + 2]]
        scene = place_scene(random.Random(number), group, background=background, weather="rain")
        digest.update(render(scene).tobytes())
    return digest.hexdigest()[:12]
