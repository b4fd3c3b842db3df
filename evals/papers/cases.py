"""Image libraries for the papers' claims, with the species in every image.

"even" has each known and rare species in turn, as the shipped library. "generic" is mostly other things: a
rare species is every five-hundredth image, so that a small pool has few of them. "hard" is mostly
look-alikes of rare and novel species, some captioned as the species. "domain" has rare species alone. All
have the shipped library's near-duplicates and its wrong, empty and nameless captions. A smaller library is
the beginning of a larger one of the same kind and seed.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

from pleinair.evals.cases import species_of
from pleinair.tools.pocket.invented import library as shipped
from pleinair.tools.pocket.invented.prompts import RELATIONS, caption
from pleinair.tools.pocket.invented.world import (
    SPECIES,
    Scene,
    Species,
    colour_pairs,
    fingerprint,
    invent_name,
    random_scene,
    render,
)
from pleinair.tools.pocket.training.streams import random_species
from pleinair.tools.retrieval.library import Library

Kind = Literal["even", "generic", "hard", "domain"]
Item = tuple[Scene, str]  # a scene and its caption

IN_LIBRARY = tuple(species for species in SPECIES if species.tier != "novel")
RARE = tuple(species for species in SPECIES if species.tier == "rare")
KNOWN = tuple(species for species in SPECIES if species.tier == "known")
UNKNOWN = tuple(species for species in SPECIES if species.tier != "known")  # queries in a hard library
RARE_SHARE = len(RARE) / 500  # of a generic library
HARD_SHARES = (0.6, 0.15, 0.25)  # look-alikes, unknown and known species in a hard library
MISNAMED = 0.15  # share of the look-alikes that are captioned as the species they resemble


@dataclass(frozen=True, slots=True)
class LabelledLibrary:
    """Library with the species in each of its images."""

    library: Library
    labels: dict[str, tuple[str, ...]]

    def shows(self, id: str, name: str) -> bool:
        """Return whether an image shows a species."""
        return name in self.labels[id]

    def has(self, name: str) -> bool:
        """Return whether any image shows a species."""
        return any(name in names for names in self.labels.values())


def open_labelled(folder: Path, kind: Kind, size: int, seed: int) -> LabelledLibrary:
    """Open a library below `folder`; it is written at its first use."""
    place = folder / f"{kind}-{size}-{seed}-{fingerprint()}"
    if not (place / "truth.json").exists():
        shutil.rmtree(place, ignore_errors=True)
        _write(place, islice(items(kind, random.Random(f"{kind}-{seed}")), size))
    labels = json.loads((place / "truth.json").read_text("utf-8"))
    return LabelledLibrary(
        Library.open(place / "pictures"), {id: tuple(names) for id, names in labels.items()}
    )


def _write(place: Path, items: Iterable[Item]) -> None:
    """Write images and metadata, and the labels last."""
    images, lines, labels = place / "pictures", [], {}
    images.mkdir(parents=True)
    for number, (scene, text) in enumerate(items):
        name = f"{number:05d}.png"
        lines.append(write_item(images / name, scene, text, place.name))
        labels[name] = [subject.species.name for subject in scene.subjects]
    (images / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    (place / "truth.json").write_text(json.dumps(labels), encoding="utf-8")


def write_item(path: Path, scene: Scene, text: str, origin: str) -> str:
    """Write an image and return its line of `metadata.jsonl`."""
    render(scene).save(path)
    source = f"{shipped.SOURCE}/{origin}/{path.name}"
    facts = {"license": shipped.LICENSE, "source": source, "author": shipped.AUTHOR}
    return json.dumps({"file_name": path.name, "text": text, **facts}) + "\n"


def items(kind: Kind, rng: random.Random) -> Iterator[Item]:
    """Yield scenes with captions without end; now and then the last scene again, moved by a hair."""
    for first, misnamed in _first_species(kind, rng):
        pair = rng.random() < shipped.TWO_SUBJECTS
        species = [first, rng.choice(KNOWN)] if pair else [first]
        scene = random_scene(rng, species, relation=rng.choice(RELATIONS) if pair else None)
        yield scene, _caption(rng, scene, misnamed)
        if rng.random() < shipped.NEAR_DUPLICATE:
            moved = tuple(replace(subject, x=subject.x + 0.01) for subject in scene.subjects)
            scene = replace(scene, subjects=moved)
            yield scene, _caption(rng, scene, misnamed)


def _caption(rng: random.Random, scene: Scene, misnamed: Species | None) -> str:
    """Write a caption, mostly with names, else of what is visible; a few are empty, a few name others."""
    draw = rng.random()
    if draw < shipped.EMPTY_CAPTION:
        return ""
    wrong = rng.choice(IN_LIBRARY) if draw < shipped.EMPTY_CAPTION + shipped.WRONG_CAPTION else misnamed
    if wrong:
        first, *rest = scene.subjects
        scene = replace(scene, subjects=(replace(first, species=wrong), *rest))
    return caption(rng, scene, by_name=bool(wrong) or rng.random() < shipped.NAMED_CAPTION)


def _first_species(kind: Kind, rng: random.Random) -> Iterator[tuple[Species, Species | None]]:
    """Yield each image's first species, and the species that its caption names instead, if any."""
    in_turn = {"even": IN_LIBRARY, "domain": RARE}.get(kind, ())
    yield from ((species, None) for species in cycle(in_turn))
    while True:
        if kind == "hard":
            makers = (
                look_alike,
                lambda rng: (rng.choice(UNKNOWN), None),
                lambda rng: (rng.choice(KNOWN), None),
            )
            (make,) = rng.choices(makers, HARD_SHARES)
            yield make(rng)
        elif rng.random() < RARE_SHARE:
            yield rng.choice(RARE), None
        else:
            yield (rng.choice(KNOWN) if rng.random() < 0.5 else random_species(rng)), None


def look_alike(rng: random.Random) -> tuple[Species, Species | None]:
    """Invent a species with the kind, the pattern and one of the two colours of an unknown species.

    The second value is the real species if the look-alike is to be captioned as it.
    """
    real = rng.choice(UNKNOWN)
    body, accent = rng.choice(near_colours(real))
    twin = Species(invent_name(rng, real.kind), real.kind, "novel", body, accent, real.pattern)
    return twin, real if rng.random() < MISNAMED else None


@cache
def near_colours(real: Species) -> tuple[tuple[str, str], ...]:
    """Return the pairs of colours that share one with a species and are no other species' of its kind."""
    used = {(species.body, species.accent) for species in SPECIES if species.kind == real.kind}
    near = [(body, accent) for body, accent in colour_pairs() if body == real.body or accent == real.accent]
    return tuple(pair for pair in near if pair not in used)


def species_groups(count: int, largest: int, seed: int) -> list[tuple[str, ...]]:
    """Sample `count` groups of each size from 2 to `largest` of the species in libraries."""
    rng, pool = random.Random(f"bunches-{seed}"), [*species_of("rare"), *species_of("known")]
    return [tuple(rng.sample(pool, size)) for size in range(2, largest + 1) for _ in range(count)]
