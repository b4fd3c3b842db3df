"""Image libraries for the papers' claims, with the species in every image.

"even" is as the shipped library: each known and rare species in turn, with its defects. "domain" is the same
of rare species alone. "generic" is mostly other things: a rare species is every five-hundredth image, so that
a small pool has few of them.

"hard" has for each right image of a rare or novel species three look-alikes of it, in which two details
differ, and two distractors. Of the right images half are not named, and half are small or beside a known
species; a third of the look-alikes are captioned as the species. So names mislead lexical search, looks
mislead dense search, and what tells them apart is in the images. A smaller library is the beginning of a
larger one of the same kind and seed.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

from pleinair.evals.cases import species_of
from pleinair.tools.pocket.catalogue import library as shipped
from pleinair.tools.pocket.catalogue.captions import Text, caption
from pleinair.tools.pocket.catalogue.sampling import draw_scene, fingerprint, impostor, plain_look
from pleinair.tools.pocket.catalogue.scenes import Scene, Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import SPECIES, Species
from pleinair.tools.pocket.library_files import NAMED_CAPTION, Record, file_name, write_records
from pleinair.tools.retrieval.library import Library

Kind = Literal["even", "generic", "hard", "domain"]
Item = tuple[Scene, Text]  # a scene and its caption
Labels = Mapping[str, Sequence[str]]  # species in each image

RARE = tuple(species for species in SPECIES if species.tier == "rare")
KNOWN = tuple(species for species in SPECIES if species.tier == "known")
UNKNOWN = tuple(species for species in SPECIES if species.tier != "known")  # queries in a hard library
SHIPPED_TIERS: Mapping[str, Sequence[str]] = {"even": ("known", "rare"), "domain": ("rare",)}
RARE_SHARE = len(RARE) / 500  # of a generic library
LOOK_ALIKES, DISTRACTORS = 3, 2  # of a hard library, for each right image
NAMED, HIDDEN, MISNAMED = 0.5, 0.5, 1 / 3  # shares of right images, of right images, of look-alikes


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
        labels = _write(place / "pictures", kind, size, seed)
        (place / "truth.json").write_text(json.dumps(labels), encoding="utf-8")
    labels = json.loads((place / "truth.json").read_text("utf-8"))
    return LabelledLibrary(
        Library.open(place / "pictures"), {id: tuple(names) for id, names in labels.items()}
    )


def _write(folder: Path, kind: Kind, size: int, seed: int) -> Labels:
    """Write images and metadata, and return the labels."""
    if kind in SHIPPED_TIERS:
        tiers = SHIPPED_TIERS[kind]
        shipped.write_library(folder, seed=seed, size=size, tiers=tiers)
        return shipped.shown_species(seed=seed, size=size, tiers=tiers)
    chosen = list(islice(items(kind, random.Random(f"{kind}-{seed}")), size))
    records = (record(file_name(n), *item, f"{kind}-{seed}") for n, item in enumerate(chosen))
    write_records(folder, records)
    return {file_name(number): _names(scene) for number, (scene, _) in enumerate(chosen)}


def record(name: str, scene: Scene, text: Text, origin: str) -> Record:
    """Render an image and return it with its line of `metadata.jsonl`, without boxes."""
    source = f"{shipped.SOURCE}/{origin}/{name}"
    line = {"text": text.words, "license": shipped.LICENSE, "source": source, "author": shipped.AUTHOR}
    return Record(name, render(scene), line, {})


def _names(scene: Scene) -> list[str]:
    return [subject.species.name for subject in scene.subjects if subject.species.name]


def items(kind: Kind, rng: random.Random) -> Iterator[Item]:
    """Yield the scenes of a generic or hard library with captions, without end."""
    if kind == "generic":
        while True:
            yield _generic(rng)
    for species in cycle(UNKNOWN):
        yield _right(rng, species)
        yield from (_look_alike(rng, species) for _ in range(LOOK_ALIKES))
        yield from (_distractor(rng) for _ in range(DISTRACTORS))


def _generic(rng: random.Random) -> Item:
    """Return an image of a rare species, or of something else."""
    if rng.random() >= RARE_SHARE:
        return _distractor(rng)
    scene = draw_scene(rng, [rng.choice(RARE)])
    return scene, caption(rng, scene, by_name=rng.random() < NAMED_CAPTION)


def _distractor(rng: random.Random) -> Item:
    """Return an image of a known species, or of a kind's plain look, which has no name."""
    scene = draw_scene(rng, [rng.choice(KNOWN) if rng.random() < 0.5 else plain_look(rng)])
    return scene, caption(rng, scene, by_name=rng.random() < NAMED_CAPTION)


def _right(rng: random.Random, species: Species) -> Item:
    """Return an image that shows the species, of which half are small or beside a known one."""
    if rng.random() >= HIDDEN:
        scene = place_scene(rng, [Subject(species)])
    elif rng.random() < 0.5:
        scene = place_scene(rng, [Subject(species, size="small")])
    else:
        scene = draw_scene(rng, rng.sample([species, rng.choice(KNOWN)], 2))
    return scene, caption(rng, scene, by_name=rng.random() < NAMED)


def _look_alike(rng: random.Random, species: Species) -> Item:
    """Return an image of a look-alike alone; a few are captioned as the species."""
    scene = draw_scene(rng, [impostor(rng, species)])
    if rng.random() >= MISNAMED:
        return scene, caption(rng, scene, by_name=False)
    subjects = tuple(replace(subject, species=species) for subject in scene.subjects)
    return scene, caption(rng, replace(scene, subjects=subjects), by_name=True)


def species_groups(count: int, largest: int, seed: int) -> list[tuple[str, ...]]:
    """Sample `count` groups of each size from 2 to `largest` of the species in libraries."""
    rng, pool = random.Random(f"bunches-{seed}"), [*species_of("rare"), *species_of("known")]
    return [tuple(rng.sample(pool, size)) for size in range(2, largest + 1) for _ in range(count)]
