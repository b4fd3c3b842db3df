"""Image library of the miniature world: images, captions, licenses and realistic defects.

The defects are near-duplicates, a few wrong or empty captions, and some images of two subjects. Boxes are
always right: a subject has one exactly if the caption names it. Not covered: a poisoned set.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pleinair.tools.pocket.invented.prompts import RELATIONS, caption
from pleinair.tools.pocket.invented.world import (
    SPECIES,
    Scene,
    Species,
    boxes,
    fingerprint,
    random_scene,
    render,
)
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
SOURCE = "pocket-world"
TWO_SUBJECTS = 0.06
FORMAT = 2  # of the files; increase it when the same arguments write something else

Item = tuple[Scene, str]  # an image's scene and caption


def cached_library(cache: Path) -> Path:
    """Return the library in a cache folder; the first caller writes it while others wait."""
    return cached(cache, f"pocket-library-{fingerprint()}-{FORMAT}", write_library)


def shown_species(
    *, seed: int = 0, size: int = 2000, tiers: Sequence[str] = ("known", "rare")
) -> dict[str, tuple[str, ...]]:
    """Return the species that each image of `write_library` shows, by file name."""
    items = mix(random.Random(f"library-{seed}"), _PAINTER, of_tiers(SPECIES, tiers), size)
    return {
        file_name(index): tuple(subject.species.name for subject in scene.subjects)
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
    """
    _write(folder, mix(random.Random(f"library-{seed}"), _PAINTER, of_tiers(SPECIES, tiers), size), seed)


def write_novel(folder: Path, *, seed: int = 0, each: int = 6, tiers: Sequence[str] = ("novel",)) -> None:
    """Write `each` images of every novel species, with names and without defects."""
    rng = random.Random(f"novel-{seed}")
    scenes = (random_scene(rng, [species]) for species in of_tiers(SPECIES, tiers) for _ in range(each))
    _write(folder, ((scene, caption(rng, scene, by_name=True)) for scene in scenes), seed)


def _draw_scene(rng: random.Random, species: Sequence[Species], first: Species) -> Scene:
    if rng.random() < TWO_SUBJECTS:
        return random_scene(rng, [first, rng.choice(species)], relation=rng.choice(RELATIONS))
    return random_scene(rng, [first])


def _nudge(rng: random.Random, scene: Scene) -> Scene:
    subjects = tuple(replace(s, x=s.x + rng.uniform(-0.01, 0.01)) for s in scene.subjects)
    return replace(scene, subjects=subjects)


_PAINTER = Painter(_draw_scene, _nudge, caption, "")


def _write(folder: Path, items: Iterable[Item], seed: int) -> None:
    write_records(folder, (_record(index, item, seed) for index, item in enumerate(items)))


def _record(index: int, item: Item, seed: int) -> Record:
    """Return one image with its line of `metadata.jsonl`."""
    scene, text = item
    name = file_name(index)
    line = {"text": text, "license": LICENSE, "source": f"{SOURCE}/{seed}/{name}", "author": AUTHOR}
    return Record(name, render(scene), line, _named_boxes(scene, text))


def _named_boxes(scene: Scene, text: str) -> dict[str, list[float]]:
    """Return the boxes of the subjects that a text names; of two of one species the first one's."""
    pairs = reversed([*zip(scene.subjects, boxes(scene), strict=True)])
    return {s.species.name: [round(edge, 4) for edge in box] for s, box in pairs if s.species.name in text}
