"""Render and encode the generator's training pool: targets, references and what their prompts ask for."""

import pickle
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pleinair.tools.pocket.prompts import RELATIONS
from pleinair.tools.pocket.training.patches import Floats, PatchMap
from pleinair.tools.pocket.world import (
    SPECIES,
    Scene,
    Species,
    boxes,
    random_scene,
    random_species,
    render,
    training_rng,
)

TARGET_TOKENS = 64
REFERENCE_SIZE = 32
REFERENCE_TOKENS = 16
SHARES = {0: 0.20, 1: 0.38, 2: 0.42}
KNOWN = tuple(species for species in SPECIES if species.tier == "known")
FILTERS = (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BOX)


@dataclass(frozen=True, slots=True)
class Case:
    """Hold one training item: who stands in it, which of them have a reference, how many each."""

    subjects: tuple[Species, ...]
    referenced: tuple[Species, ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """Hold encoded items of one reference count r, all float16 unless said otherwise.

    `targets` (n, 64, 64) tokens × channels; `references` (n, 16 r, 64); `covered` (n, 64) uint8, 1 where a
    subject's box meets the token; `wishes` one (names or kinds, relation, background) an item.
    """

    targets: NDArray[np.float16]
    references: NDArray[np.float16]
    covered: NDArray[np.uint8]
    wishes: list[tuple[tuple[str, ...], str | None, str | None]]


def _any(rng: random.Random, known: float) -> Species:
    return rng.choice(KNOWN) if rng.random() < known else random_species(rng)


def draw_case(rng: random.Random, references: int) -> Case:
    """Choose subjects and references; most referenced species are random, so that copying generalises.

    References come in the order in which the prompt names their subjects: nothing else tells apart two$
    unknown species of one kind.
    """
    if references == 0:
        return Case(tuple(_any(rng, 0.88) for _ in range(1 if rng.random() < 0.6 else 2)), ())
    if references == 1:
        return _one_reference(rng)
    if rng.random() < 0.15:
        species = _any(rng, 0.2)
        return Case((species,), (species, species))
    pair = (_any(rng, 0.15), _any(rng, 0.15))
    return Case(pair, pair)


def _one_reference(rng: random.Random) -> Case:
    if rng.random() < 0.53:
        species = _any(rng, 0.15)
        return Case((species,), (species,))
    first, second = _any(rng, 0.32), _any(rng, 0.74)
    return Case((first, second) if rng.random() < 0.5 else (second, first), (first,))


def pack(latents: Floats) -> Floats:
    """Turn (n, 16, h, w) latents into (n, h/2 · w/2, 64) tokens in the order of the pipeline's packing."""
    n, c, h, w = latents.shape
    cut = latents.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 3, 5, 2, 4)
    return cut.reshape(n, c * 4, h * w // 4).transpose(0, 2, 1)


def _covered_tokens(scene: Scene) -> NDArray[np.uint8]:
    """Return 64 flags, row by row: does any subject's box meet this 8 × 8 pixel token?"""
    grid = np.zeros((8, 8), dtype=np.uint8)
    for x0, y0, x1, y1 in boxes(scene):
        grid[int(y0 * 8) : int(np.ceil(y1 * 8)), int(x0 * 8) : int(np.ceil(x1 * 8))] = 1
    return grid.reshape(-1)


def _render_reference(rng: random.Random, species: Species) -> NDArray[np.uint8]:
    picture = render(random_scene(rng, [species]))
    return np.asarray(picture.resize((REFERENCE_SIZE, REFERENCE_SIZE), rng.choice(FILTERS)))


def _items(references: int, indices: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    for index in indices:
        rng = training_rng(index)
        case = draw_case(rng, references)
        relation = rng.choice(RELATIONS) if len(case.subjects) == 2 else None
        scene = random_scene(rng, case.subjects, relation=relation)
        pictures = [_render_reference(rng, species) for species in case.referenced]
        names = tuple(s.name if s in KNOWN else s.kind for s in case.subjects)
        place = scene.background if rng.random() < 0.75 else None
        yield np.asarray(render(scene)), pictures, _covered_tokens(scene), (names, relation, place)


def build_part(patch_map: PatchMap, references: int, indices: Sequence[int]) -> Pool:
    """Render and encode the items of `indices`, each with `references` references."""
    targets, pictures, covered, wishes = zip(*_items(references, indices), strict=True)
    tokens = pack(patch_map.encode(np.stack(targets))).astype(np.float16)
    count = len(indices)
    copies = np.zeros((count, 0, 64), dtype=np.float16)
    if references:
        flat = np.stack([picture for item in pictures for picture in item])
        copies = pack(patch_map.encode(flat)).astype(np.float16).reshape(count, -1, 64)
    return Pool(tokens, copies, np.stack(covered), list(wishes))


def _build_pool(patch_map: PatchMap, references: int, count: int, first_index: int) -> Pool:
    """Build `count` items on two processes."""
    chunks = [
        range(i, min(i + 1000, first_index + count)) for i in range(first_index, first_index + count, 1000)
    ]
    with ProcessPoolExecutor(2) as workers:
        parts = list(workers.map(build_part, [patch_map] * len(chunks), [references] * len(chunks), chunks))
    return Pool(
        np.concatenate([p.targets for p in parts]),
        np.concatenate([p.references for p in parts]),
        np.concatenate([p.covered for p in parts]),
        [wish for p in parts for wish in p.wishes],
    )


def cached_pool(folder: Path, patch_map: PatchMap, references: int, count: int) -> Pool:
    """Load the pool of `references` from `folder`, building it first where it is missing."""
    path = folder / f"pool-{references}-{count}.pickle"
    if not path.exists():
        pool = _build_pool(patch_map, references, count, first_index=10_000_000 * (references + 1))
        path.write_bytes(pickle.dumps(pool))
    stored: Pool = pickle.loads(path.read_bytes())  # the trainer's own file
    return stored
