"""Encoded training items on disk, in shards that a training reads while more are rendered."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pleinair.tools.pocket.catalogue.scenes import SIZE, Scene, Subject, boxes, place_scene, render
from pleinair.tools.pocket.catalogue.species import Species
from pleinair.tools.pocket.training.autoencoder import Floats, PatchMap, load_patch_map
from pleinair.tools.pocket.training.cases import draw_item, training_rng
from pleinair.tools.pocket.training.course import Run

REFERENCE_SIZE, CELL = 48, 8  # pixels of a reference's side and of a token's
SHARD, SHARDS, TINY_SHARDS = 500, 240, 9  # items of a shard, shards
SHARES = (0.26, 0.34, 0.28, 0.12)  # of shards with 0, 1, 2 and 3 references
FILTERS = (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BOX)


@dataclass(frozen=True, slots=True)
class Shard:
    """Items with r references: `targets` (n, 144, 64), `references` (n, 36 r, 64), `covered` (n, 144) uint8.

    `prompts` has four of each item.
    """

    targets: NDArray[np.float16]
    references: NDArray[np.float16]
    covered: NDArray[np.uint8]
    prompts: list[list[str]]


def reference_scene(rng: random.Random, scene: Scene, species: Species) -> Scene:
    """Place one of a scene's species alone before a random background, facing as it does in the scene."""
    flip = next(figure.flip for figure in scene.figures if figure.species is species)
    alone = place_scene(rng, [Subject(species)])
    return replace(alone, figures=tuple(replace(figure, flip=flip) for figure in alone.figures))


def pack(latents: Floats) -> Floats:
    """Convert (n, 16, h, w) latents to (n, h/2 · w/2, 64) tokens in the order of the pipeline's packing."""
    n, c, h, w = latents.shape
    cut = latents.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 3, 5, 2, 4)
    return cut.reshape(n, c * 4, h * w // 4).transpose(0, 2, 1)


def render_shards(run: Run) -> None:
    """Render the shards that are not there; all of them take half an hour."""
    for number in range(run.size(SHARDS, TINY_SHARDS)):
        if not _path(run, number).exists():
            _render_shard(run, number)
            if number % 20 == 19:
                run.say(f"generator: {number + 1} of {SHARDS} shards are rendered")


def _path(run: Run, number: int) -> Path:
    return run.work / "shards" / f"{number:04}-{reference_count(number)}.npz"


def _render_shard(run: Run, number: int) -> None:
    path, references, size = _path(run, number), reference_count(number), run.size(SHARD, 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    patch_map = load_patch_map(run)
    targets, copies, covered, prompts = [], [], [], []
    for index in range(number * size, (number + 1) * size):
        rng = training_rng(index)
        item = draw_item(rng, references)
        targets.append(np.asarray(render(item.scene)))
        covered.append(_covered(item.scene))
        for species in item.referenced:
            image = render(reference_scene(rng, item.scene, species))
            copies.append(np.asarray(image.resize((REFERENCE_SIZE,) * 2, rng.choice(FILTERS))))
        prompts.append([item.prompt(rng) for _ in range(4)])
    draft = path.with_suffix(".new.npz")
    np.savez(
        draft,
        targets=pack(patch_map.encode(np.stack(targets))).astype(np.float16),
        references=_encode_references(patch_map, copies, size),
        covered=np.stack(covered),
        prompts=json.dumps(prompts),
    )
    draft.replace(path)


def _encode_references(
    patch_map: PatchMap, copies: list[NDArray[np.uint8]], items: int
) -> NDArray[np.float16]:
    if not copies:
        return np.zeros((items, 0, 64), np.float16)
    return pack(patch_map.encode(np.stack(copies))).astype(np.float16).reshape(items, -1, 64)


def reference_count(number: int) -> int:
    """Return the number of references of the items of a shard."""
    position, total = (number * 0.618034) % 1, 0.0
    for count, share in enumerate(SHARES):
        total += share
        if position < total:
            return count
    return len(SHARES) - 1


def _covered(scene: Any) -> NDArray[np.uint8]:
    side = SIZE // CELL
    grid = np.zeros((side, side), dtype=np.uint8)
    for x0, y0, x1, y1 in boxes(scene):
        grid[int(y0 * side) : int(np.ceil(y1 * side)), int(x0 * side) : int(np.ceil(x1 * side))] = 1
    return grid.reshape(-1)


def load_shard(path: Path) -> Shard:
    """Load a shard."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in ("targets", "references", "covered")}
        return Shard(**arrays, prompts=json.loads(str(stored["prompts"])))
