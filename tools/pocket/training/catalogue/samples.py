"""Labelled images of the catalogue world, for the models that look at images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pleinair.tools.pocket.catalogue.sampling import stranger
from pleinair.tools.pocket.catalogue.scenes import SIZE, Figure, Scene, outlines, render
from pleinair.tools.pocket.catalogue.species import SPECIES, Species
from pleinair.tools.pocket.training.images import CELL, Rng, Sample

TAUGHT = tuple(species for species in SPECIES if species.tier != "novel")


def choose_species(rng: Rng, pool: Sequence[Species], *, strangers: float) -> list[Species]:
    """Choose one to three different species; each is replaced by a stranger with that probability."""
    chosen = rng.sample(list(pool), rng.choices((1, 2, 3), (5, 4, 2))[0])
    return [stranger(rng, s) if rng.random() < strangers else s for s in chosen]


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
    return np.asarray(mask.reduce(CELL), dtype=np.float32) / np.float32(255)


def make_sample(scene: Scene) -> Sample:
    """Render a scene with its labels."""
    return Sample(np.asarray(render(scene)).copy(), owner_map(scene), scene)
