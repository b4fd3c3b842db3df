"""Species of the catalogue world: names, kinds, tiers and looks.

*Known* species are in the generator's training with their names; *rare* ones are in the training of the
encoder and the detector and in the library only; *novel* ones are in no training at all.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from pleinair.tools.pocket.catalogue.drawings import birds, cars, dogs, fishes, insects, plants
from pleinair.tools.pocket.catalogue.drawings.geometry import Shape
from pleinair.tools.pocket.catalogue.drawings.palette import NAMED

Tier = Literal["known", "rare", "novel"]
Looks = Mapping[str, str]
_COATS = ("brown", "ink", "white", "tan", "cream", "grey", "gold", "rust", "silver", "buff", "slate")
_SKINS = tuple(name for name in NAMED if name not in ("black", "grey", "white"))


@dataclass(frozen=True, slots=True)
class Kind:
    """Things drawn by one function; `marks` has the choices of each mark, the first is the default."""

    name: str
    plural: str
    draw: Callable[[Looks], list[Shape]]
    marks: Mapping[str, Sequence[str]]
    colours: Mapping[str, str]  # colour of each part by default
    palette: Sequence[str] = tuple(NAMED)  # colours of invented species


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "bird",
            "birds",
            birds.draw_bird,
            birds.MARKS,
            dict(zip(birds.PARTS, "brown cream brown brown brown horn red ink ink".split(), strict=True)),
        ),
        Kind(
            "butterfly",
            "butterflies",
            insects.draw_butterfly,
            insects.MARKS,
            dict(zip(insects.PARTS, "orange orange ink ink ink".split(), strict=True)),
        ),
        Kind(
            "fish",
            "fish",
            fishes.draw_fish,
            fishes.MARKS,
            dict(zip(fishes.PARTS, "blue silver ink blue ink".split(), strict=True)),
        ),
        Kind(
            "flower",
            "flowers",
            plants.draw_flower,
            plants.FLOWER_MARKS,
            dict(zip(plants.FLOWER_PARTS, "pink white yellow leaf".split(), strict=True)),
        ),
        Kind(
            "mushroom",
            "mushrooms",
            plants.draw_mushroom,
            plants.MUSHROOM_MARKS,
            dict(zip(plants.MUSHROOM_PARTS, "brown white cream cream".split(), strict=True)),
        ),
        Kind(
            "fruit",
            "fruits",
            plants.draw_fruit,
            plants.FRUIT_MARKS,
            dict(zip(plants.FRUIT_PARTS, "red yellow cream leaf".split(), strict=True)),
            _SKINS,
        ),
        Kind(
            "dog",
            "dogs",
            dogs.draw_dog,
            dogs.MARKS,
            dict(zip(dogs.PARTS, "brown ink cream brown red".split(), strict=True)),
            _COATS,
        ),
        Kind(
            "car",
            "cars",
            cars.draw_car,
            cars.MARKS,
            dict(zip(cars.PARTS, "red white red blue silver".split(), strict=True)),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Species:
    """Named species; `looks` has a colour for each part and a choice for each mark of its kind."""

    name: str
    kind: str
    tier: Tier
    looks: Looks = field(hash=False)

    @property
    def marks(self) -> dict[str, str]:
        """Return the marks that differ from the kind's default."""
        return {
            mark: self.looks[mark]
            for mark, choices in KINDS[self.kind].marks.items()
            if self.looks[mark] != choices[0]
        }

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Return the shapes, back to front, moved and scaled to fit the unit square."""
        return _fitted(self.kind, tuple(sorted(self.looks.items())))


@lru_cache(maxsize=1024)  # of invented looks there is no end
def _fitted(kind: str, looks: tuple[tuple[str, str], ...]) -> tuple[Shape, ...]:
    shapes = KINDS[kind].draw(dict(looks))
    points = np.concatenate([shape.points for shape in shapes if shape.clip is None])
    low, high = points.min(axis=0), points.max(axis=0)
    middle, scale = (low + high) / 2, 2 / float((high - low).max())
    return tuple(
        Shape(
            shape.colour,
            (shape.points - middle) * scale,
            None if shape.clip is None else (shape.clip - middle) * scale,
        )
        for shape in shapes
    )


def _read() -> tuple[Species, ...]:
    table = tomllib.loads((Path(__file__).parent / "species.toml").read_text("utf-8"))
    return tuple(
        _species(name, KINDS[kind], dict(looks))
        for kind, group in table.items()
        for name, looks in group.items()
    )


def _species(name: str, kind: Kind, looks: dict[str, str]) -> Species:
    tier = looks.pop("tier", "known")
    defaults = dict(kind.colours) | {mark: choices[0] for mark, choices in kind.marks.items()}
    if unknown := looks.keys() - defaults.keys():
        raise ValueError(f"{name}: {kind.name} has no {sorted(unknown)}")
    return Species(name, kind.name, tier, MappingProxyType(defaults | looks))  # type: ignore[arg-type]


SPECIES: tuple[Species, ...] = _read()
BY_NAME: Mapping[str, Species] = {species.name: species for species in SPECIES}


def invent(rng: random.Random, kind: str = "") -> Species:
    """Return a species without a name, of random colours and marks."""
    chosen = KINDS[kind or rng.choice(tuple(KINDS))]
    looks = {part: rng.choice(chosen.palette) for part in chosen.colours}
    looks |= {mark: rng.choice(choices) for mark, choices in chosen.marks.items()}
    return Species("", chosen.name, "novel", MappingProxyType(looks))


def plain(kind: str, colour: str = "") -> Species:
    """Return a species of a kind's default look, its main parts in a colour if there is one."""
    chosen = KINDS[kind]
    looks = dict(chosen.colours) | {mark: choices[0] for mark, choices in chosen.marks.items()}
    if colour:
        looks |= {part: colour for part in MAIN_PARTS[kind]}
    return Species(kind, kind, "known", MappingProxyType(looks))


MAIN_PARTS: Mapping[str, Sequence[str]] = {
    "bird": ("body", "head", "wing", "tail_colour"),
    "butterfly": ("fore", "hind"),
    "fish": ("body", "fin_colour"),
    "flower": ("petal",),
    "mushroom": ("cap_colour",),
    "fruit": ("skin",),
    "dog": ("coat", "ear_colour"),
    "car": ("body", "roof"),
}
