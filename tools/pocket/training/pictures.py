"""Render labelled pictures for the models that look: what stands in each cell, where, and its scene."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pleinair.tools.pocket.world import (
    SPECIES,
    Scene,
    Species,
    Subject,
    colour_pairs,
    random_scene,
    random_species,
    render,
)

GRID = 16  # cells a side of the owner map, 4 pixels each
RELATIONS = ("beside", "left of", "above")
_TAKEN = frozenset((s.kind, s.body, s.accent) for s in SPECIES)


@dataclass(frozen=True, slots=True)
class Sample:
    """Hold one picture, uint8 [64, 64, 3], with `owner`, int8 [16, 16].

    A cell's owner is 0 for the background, 1 or 2 for a subject of the scene, -1 where the two mix.
    """

    pixels: NDArray[np.uint8]
    owner: NDArray[np.int8]
    scene: Scene


def impostor(rng: random.Random, species: Species) -> Species:
    """Return the species with one of its two colours exchanged, so that it is no species any more."""
    looks = [
        (body, accent)
        for body, accent in colour_pairs()
        if (body == species.body) != (accent == species.accent) and (species.kind, body, accent) not in _TAKEN
    ]
    body, accent = rng.choice(looks)
    return replace(species, name="", tier="novel", body=body, accent=accent)


def _coverage(subject: Subject) -> NDArray[np.float32]:
    """Return the share of each cell that the subject covers, [16, 16] in 0..1; windows count as holes.

    The subject is drawn in black on the meadow, whose red channel is nowhere under 160.
    """
    black = replace(subject, species=replace(subject.species, body="black", accent="black"))
    red = np.asarray(render(Scene((black,), "meadow", 0), GRID), dtype=np.float32)[..., 0]
    return ((160 - red) / 130).clip(0, 1)


def owner_of(scene: Scene) -> NDArray[np.int8]:
    """Return the owner map of a scene, int8 [16, 16]."""
    owner = np.zeros((GRID, GRID), dtype=np.int8)
    for number, subject in enumerate(scene.subjects, start=1):
        share = _coverage(subject)
        owner[(share > 0.15) & (share < 0.55)] = -1
        owner[share >= 0.55] = number
    return owner


def draw(rng: random.Random, species: Sequence[Species]) -> Sample:
    """Render one scene of one or two species in a random relation."""
    scene = random_scene(rng, species, relation=rng.choice(RELATIONS))
    return Sample(np.asarray(render(scene)).copy(), owner_of(scene), scene)


def choose(
    rng: random.Random, named: Sequence[Species], *, pairs: float = 0.5, strangers: float = 0.25
) -> list[Species]:
    """Choose one species or, with probability `pairs`, two different ones.

    Each is, with probability `strangers`, an impostor of a named one or a freshly invented look.
    """
    chosen = rng.sample(list(named), 2 if rng.random() < pairs else 1)
    return [_stranger(rng, s) if rng.random() < strangers else s for s in chosen]


def _stranger(rng: random.Random, species: Species) -> Species:
    if rng.random() < 0.7:
        return impostor(rng, species)
    return replace(random_species(rng), name="")


class Pool:
    """Keep rendered samples in memory and exchange a few each step, since rendering costs milliseconds."""

    def __init__(self, make: Callable[[int], Sample], size: int) -> None:
        """Render `size` samples with `make(index)`, index 0 upwards."""
        self._make = make
        self._samples = [make(index) for index in range(size)]
        self._next = size

    def batch(self, rng: random.Random, size: int, fresh: int = 0) -> list[Sample]:
        """Render `fresh` new samples in place of old ones, then draw `size` different ones."""
        for _ in range(fresh):
            self._samples[self._next % len(self._samples)] = self._make(self._next)
            self._next += 1
        return rng.sample(self._samples, size)
