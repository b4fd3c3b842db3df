"""Training data of the pocket generator: its tokenizer, encoded scenes and references, and their prompts."""

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import PreTrainedTokenizerFast

from pleinair.tools.pocket.invented.backgrounds import BACKGROUNDS
from pleinair.tools.pocket.invented.prompts import RELATIONS, Request, write_prompt
from pleinair.tools.pocket.invented.world import SPECIES, Scene, Species, boxes, random_scene, render
from pleinair.tools.pocket.training.autoencoder import Floats, PatchMap, load_patch_map
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.networks import train_tokenizer
from pleinair.tools.pocket.training.streams import random_species, training_rng

REFERENCE_SIZE = 32
VOCABULARY = 900
KNOWN = tuple(species for species in SPECIES if species.tier == "known")
FILTERS = (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BOX)
CHUNK = 1000


def write_training_prompts(count: int, first_index: int = 0) -> Iterator[str]:
    """Yield prompts over known and freshly invented names, never a rare or novel one."""
    for index in range(first_index, first_index + count):
        yield draw_prompt(training_rng(index), 0.7)[0]


def draw_prompt(rng: random.Random, share: float) -> tuple[str, list[Species]]:
    """Return a prompt and the one or two species it names, each known with probability `share`."""
    species = [_draw_species(rng, share) for _ in range(rng.choice((1, 2)))]
    relation = rng.choice(RELATIONS) if len(species) == 2 else None
    names = tuple(s.name for s in species)
    return write_prompt(rng, Request(names, relation, rng.choice((*BACKGROUNDS, None)))), species


def _draw_species(rng: random.Random, share: float) -> Species:
    """Return a known species with probability `share`, else an invented one."""
    return rng.choice(KNOWN) if rng.random() < share else random_species(rng)


def build_tokenizer(count: int = 30_000) -> PreTrainedTokenizerFast:
    """Train the BPE on `count` prompts: a known name is about a token, an unknown one falls in pieces."""
    return train_tokenizer(write_training_prompts(count), VOCABULARY)


@dataclass(frozen=True, slots=True)
class Case:
    """Species of one training item, and those of its references."""

    subjects: tuple[Species, ...]
    referenced: tuple[Species, ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """Encoded items of one reference count r.

    `targets` (n, 64, 64) tokens × channels; `references` (n, 16 r, 64); `covered` (n, 64) uint8, 1 where a
    subject's box meets the token; `requests`: names or kinds, relation and background of each item.
    """

    targets: NDArray[np.float16]
    references: NDArray[np.float16]
    covered: NDArray[np.uint8]
    requests: list[tuple[tuple[str, ...], str | None, str | None]]


def draw_case(rng: random.Random, references: int) -> Case:
    """Choose subjects and references; most referenced species are random, so that copying generalises.

    References are in the order in which the prompt names their subjects: nothing else distinguishes two
    unknown species of one kind.
    """
    if references == 0:
        return Case(tuple(_draw_species(rng, 0.88) for _ in range(1 if rng.random() < 0.6 else 2)), ())
    if references == 1:
        return _one_reference(rng)
    if rng.random() < 0.15:
        species = _draw_species(rng, 0.2)
        return Case((species,), (species, species))
    pair = (_draw_species(rng, 0.15), _draw_species(rng, 0.15))
    return Case(pair, pair)


def _one_reference(rng: random.Random) -> Case:
    if rng.random() < 0.53:
        species = _draw_species(rng, 0.15)
        return Case((species,), (species,))
    first, second = _draw_species(rng, 0.32), _draw_species(rng, 0.74)
    return Case((first, second) if rng.random() < 0.5 else (second, first), (first,))


def pack(latents: Floats) -> Floats:
    """Convert (n, 16, h, w) latents to (n, h/2 · w/2, 64) tokens in the order of the pipeline's packing."""
    n, c, h, w = latents.shape
    cut = latents.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 3, 5, 2, 4)
    return cut.reshape(n, c * 4, h * w // 4).transpose(0, 2, 1)


def _covered_tokens(scene: Scene) -> NDArray[np.uint8]:
    """Return 64 flags, row by row: whether a subject's box meets the 8 × 8 pixels of the token."""
    grid = np.zeros((8, 8), dtype=np.uint8)
    for x0, y0, x1, y1 in boxes(scene):
        grid[int(y0 * 8) : int(np.ceil(y1 * 8)), int(x0 * 8) : int(np.ceil(x1 * 8))] = 1
    return grid.reshape(-1)


def _render_reference(rng: random.Random, species: Species) -> NDArray[np.uint8]:
    image = render(random_scene(rng, [species]))
    return np.asarray(image.resize((REFERENCE_SIZE, REFERENCE_SIZE), rng.choice(FILTERS)))


def _items(references: int, indices: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    for index in indices:
        rng = training_rng(index)
        case = draw_case(rng, references)
        relation = rng.choice(RELATIONS) if len(case.subjects) == 2 else None
        scene = random_scene(rng, case.subjects, relation=relation)
        images = [_render_reference(rng, species) for species in case.referenced]
        names = tuple(s.name if s in KNOWN else s.kind for s in case.subjects)
        place = scene.background if rng.random() < 0.75 else None
        yield np.asarray(render(scene)), images, _covered_tokens(scene), (names, relation, place)


def build_part(patch_map: PatchMap, references: int, indices: Sequence[int]) -> Pool:
    """Render and encode the items of `indices`, each with `references` references."""
    targets, images, covered, requests = zip(*_items(references, indices), strict=True)
    tokens = pack(patch_map.encode(np.stack(targets))).astype(np.float16)
    copies = np.zeros((len(indices), 0, 64), dtype=np.float16)
    if references:
        flat = np.stack([image for item in images for image in item])
        copies = pack(patch_map.encode(flat)).astype(np.float16).reshape(len(indices), -1, 64)
    return Pool(tokens, copies, np.stack(covered), list(requests))


def _build_pool(patch_map: PatchMap, references: int, count: int) -> Pool:
    """Build `count` items, on two processes if they are many."""
    start = 10_000_000 * (references + 1)
    chunks = [range(i, min(i + CHUNK, start + count)) for i in range(start, start + count, CHUNK)]
    with ProcessPoolExecutor(2) as workers:
        run_all = workers.map if len(chunks) > 1 else map
        parts = list(run_all(build_part, [patch_map] * len(chunks), [references] * len(chunks), chunks))
    return Pool(
        np.concatenate([p.targets for p in parts]),
        np.concatenate([p.references for p in parts]),
        np.concatenate([p.covered for p in parts]),
        [request for p in parts for request in p.requests],
    )


def load_pool(run: Run, references: int, count: int) -> Pool:
    """Load the run's pool of `references`, building it first if it is missing."""
    path = run.work / f"pool-{references}-{count}.npz"
    if not path.exists():
        pool = _build_pool(load_patch_map(run), references, count)
        np.savez(path.with_suffix(".new.npz"), requests=json.dumps(pool.requests), **_arrays(pool))
        path.with_suffix(".new.npz").replace(path)
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in ("targets", "references", "covered")}
        return Pool(**arrays, requests=json.loads(str(stored["requests"])))


def _arrays(pool: Pool) -> dict[str, Any]:
    return {"targets": pool.targets, "references": pool.references, "covered": pool.covered}
