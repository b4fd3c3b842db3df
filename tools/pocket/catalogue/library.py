"""Image library of the catalogue world: images, captions, licenses and realistic defects.

The defects are near-duplicates, a few wrong or empty captions, images of two subjects, distractors, which
show a kind's plain look, and look-alikes, which differ from a species in two details. Boxes are always right:
a subject has one exactly if the caption names it. Not covered: a poisoned set.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pleinair.tools.pocket.catalogue.captions import Text, caption
from pleinair.tools.pocket.catalogue.sampling import draw_scene, fingerprint, impostor, plain_look
from pleinair.tools.pocket.catalogue.scenes import Scene, boxes, render
from pleinair.tools.pocket.catalogue.species import SPECIES, Species
from pleinair.tools.pocket.library_files import (
    Painter,
    Record,
    cached,
    file_name,
    mix,
    of_tiers,
    write_records,
)

LICENSE = "CC0-1.0"
AUTHOR = "pleinair pocket world"
SOURCE = "pocket-catalogue"
TWO_SUBJECTS, DISTRACTOR, LOOK_ALIKE = 0.08, 0.04, 0.04
FORMAT = 1  # of the files; increase it when the same arguments write something else

Item = tuple[Scene, Text]  # an image's scene and caption


def cached_library(cache: Path) -> Path:
    """Return the library in a cache folder; the first caller writes it while others wait."""
    return cached(cache, f"pocket-catalogue-{fingerprint()}-{FORMAT}", write_library)


def shown_species(
    *, seed: int = 0, size: int = 2000, tiers: Sequence[str] = ("known", "rare")
) -> dict[str, tuple[str, ...]]:
    """Return the species that each image of `write_library` shows, by file name; none for other looks."""
    items = mix(random.Random(f"library-{seed}"), _PAINTER, of_tiers(SPECIES, tiers), size)
    return {
        file_name(index): tuple(s.species.name for s in scene.subjects if s.species.name)
        for index, (scene, _) in enumerate(items)
    }


def write_library(
    folder: Path, *, seed: int = 0, size: int = 2000, tiers: Sequence[str] = ("known", "rare")
) -> None:
    """Write `size` images of the tiers' species in turn, with `metadata.jsonl`, into `folder`, atomically.

    Each line has file_name, text (the caption, may be empty), license, source and author, and boxes if the
    caption names a subject. The same arguments give the same bytes.

    Raises:
        FileExistsError: `folder` exists and is not empty.
        ValueError: no species is of the tiers.
    """
    _write(folder, mix(random.Random(f"library-{seed}"), _PAINTER, of_tiers(SPECIES, tiers), size), seed)


def write_novel(folder: Path, *, seed: int = 0, each: int = 6, tiers: Sequence[str] = ("novel",)) -> None:
    """Write `each` images of every novel species, with names and without defects."""
    rng = random.Random(f"novel-{seed}")
    scenes = (draw_scene(rng, [species]) for species in of_tiers(SPECIES, tiers) for _ in range(each))
    _write(folder, ((scene, caption(rng, scene, by_name=True)) for scene in scenes), seed)


def _draw_scene(rng: random.Random, species: Sequence[Species], first: Species) -> Scene:
    chance = rng.random()
    if chance < DISTRACTOR:
        return draw_scene(rng, [plain_look(rng)])
    if chance < DISTRACTOR + LOOK_ALIKE:
        return draw_scene(rng, [impostor(rng, first)])
    if chance < DISTRACTOR + LOOK_ALIKE + TWO_SUBJECTS:
        return draw_scene(rng, [first, rng.choice(species)])
    return draw_scene(rng, [first])


def _nudge(rng: random.Random, scene: Scene) -> Scene:
    figures = tuple(replace(f, x=f.x + rng.uniform(-0.01, 0.01)) for f in scene.figures)
    return replace(scene, figures=figures)


_PAINTER = Painter(_draw_scene, _nudge, caption, Text("", ()))


def _write(folder: Path, items: Iterable[Item], seed: int) -> None:
    write_records(folder, (_record(index, item, seed) for index, item in enumerate(items)))


def _record(index: int, item: Item, seed: int) -> Record:
    """Return one image with its line of `metadata.jsonl`."""
    scene, text = item
    name = file_name(index)
    source = f"{SOURCE}/{seed}/{name}"
    line = {"text": text.words, "license": LICENSE, "source": source, "author": AUTHOR}
    return Record(name, render(scene), line, _named_boxes(scene, text))


def _named_boxes(scene: Scene, text: Text) -> dict[str, list[float]]:
    """Return the box of the first figure of each species that the text names."""
    pairs = reversed([*zip(scene.figures, boxes(scene), strict=True)])
    return {
        figure.species.name: [round(edge, 4) for edge in box]
        for figure, box in pairs
        if any(look.named and look.fits(figure.species) for look in text.looks)
    }
