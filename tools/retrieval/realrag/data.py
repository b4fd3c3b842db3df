"""Training set of a reflective retriever: prompts, their images, and what the generator generates instead.

RealRAG (Lyu et al., ICML 2025, section 3.1 and equation 4). The negative of a pair is the library's image
that is most similar to the generator's own for its prompt. Negatives are selected once, by the frozen tower:
the paper does not say whether they follow the training. Not covered: captions that a model has to write
first.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from pleinair.tools.callbacks import no_callback
from pleinair.tools.generate import generate
from pleinair.tools.retrieval.library import Item, Library
from pleinair.tools.retrieval.readers.names import without_code
from pleinair.tools.types import BadInput, Encoder, GenerateRequest, Generator, Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.retrieval.index import Index
    from pleinair.tools.retrieval.realrag.reflective import ReflectiveOptions
    from pleinair.tools.storage.artifacts import ArtifactStore
    from pleinair.tools.types import Vectors

    Numbers = NDArray[np.int64]

BLOCK = 1024  # rows compared with the library at a time


@dataclass(frozen=True, slots=True)
class Pair:
    """Library image with the prompt that it answers and its class."""

    id: str
    prompt: str
    label: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Image that the generator generated for a prompt; its bytes are in the store."""

    prompt: str
    seed: int
    picture: Picture

    def facts(self) -> dict[str, str | int]:
        """Return prompt, seed and hash for a log."""
        return {"prompt": self.prompt, "seed": self.seed, "sha256": self.picture.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """All input of a training as numbers: the towers are frozen, so nothing is embedded twice."""

    pairs: tuple[Pair, ...]  # n of them
    pool: Vectors  # [m, dim], every image of the library
    contents: Numbers  # [m], equal for images of the same bytes
    labels: Numbers  # [m], the image's class, -1 for none
    rows: Numbers  # [n], the pairs' images as rows of the pool
    texts: Vectors  # [n, dim], the pairs' prompts
    negatives: Numbers  # [n], rows of the pool, -1 if no image may be one
    digest: str  # of images, prompts, classes and negatives


def pairs_by_caption(items: Iterable[Item]) -> list[Pair]:
    """Use every caption as a prompt, and those of an image as a class of its own.

    Images without a caption are dropped.
    """
    return [
        Pair(item.id, caption, item.caption.casefold())
        for item in items
        for caption in item.caption.splitlines()
    ]


def pairs_by_folder(items: Iterable[Item]) -> list[Pair]:
    """Use the name of an image's folder as its class; images in a folder without one are dropped.

    A code is no name: "n02085620-Chihuahua" is "Chihuahua", and "n01440764" nothing.
    """
    labels = ((item.id, without_code(PurePosixPath(item.id).parent.name)) for item in items)
    return [Pair(id, prompt_for(label), label) for id, label in labels if label]


def pairs_by_name(items: Iterable[Item], names: Sequence[str]) -> list[Pair]:
    """Use the name in an image's caption as its class; captions with none or with several are dropped."""
    words = {name: re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE) for name in names}
    matches = ((item.id, [name for name in names if words[name].search(item.caption)]) for item in items)
    return [Pair(id, prompt_for(match[0]), match[0]) for id, match in matches if len(match) == 1]


def prompt_for(label: str) -> str:
    """Return the paper's prompt for a class (section 4)."""
    return f"a photo of a {label}"


def generate_samples(
    prompts: Sequence[str],
    *,
    generator: Generator,
    store: ArtifactStore,
    each: int,
    on_progress: Callable[[int, int], None],
) -> list[Sample]:
    """Generate an image without references for every prompt and each of `each` seeds.

    Size, steps and guidance are the generator's own. The store caches an image under the generator's id and
    the whole request, seed included.
    """
    capabilities, samples = generator.capabilities, list[Sample]()
    for prompt in prompts:
        for seed in range(each):
            request = GenerateRequest(
                prompt=prompt,
                height=capabilities.height,
                width=capabilities.width,
                num_inference_steps=capabilities.num_inference_steps,
                guidance_scale=capabilities.guidance_scale,
                seed=seed,
            )
            picture = generate(request, generator=generator, store=store, on_step=no_callback)
            samples.append(Sample(prompt, seed, picture))
            on_progress(len(samples), len(prompts) * each)
    return samples


def build_training_set(
    pairs: Sequence[Pair],
    samples: Sequence[Sample],
    *,
    index: Index,
    encoder: Encoder,
    store: ArtifactStore,
    options: ReflectiveOptions,
) -> TrainingSet:
    """Embed prompts and samples and select each pair's negative; the library's vectors are the index's.

    Pairs whose image the index skipped are dropped. Without samples there are no negatives. Raise `BadInput`
    if fewer than two classes remain.
    """
    row_of = {id: row for row, id in enumerate(index.ids)}
    pairs = [pair for pair in pairs if pair.id in row_of]
    rows = np.array([row_of[pair.id] for pair in pairs], dtype=np.int64)
    labels = _labels(pairs, rows, len(row_of))
    pool = np.stack([index.vector(id) for id in index.ids])
    hashes = [file.sha256 for file in index.manifest.files]
    contents = np.unique(hashes, return_inverse=True)[1]
    negatives = np.full(len(rows), -1, dtype=np.int64)
    if samples:
        embedded = _embed_samples(pairs, samples, encoder, store)
        negatives = find_negatives(embedded, rows, pool, contents, labels, options.collisions)
    facts = [hashes, [(pair.id, pair.prompt, pair.label) for pair in pairs], negatives.tolist()]
    return TrainingSet(
        pairs=tuple(pairs),
        pool=pool,
        contents=contents,
        labels=labels,
        rows=rows,
        texts=encoder.encode_text([pair.prompt for pair in pairs]),
        negatives=negatives,
        digest=hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16],
    )


def describe_pairs(
    training_set: TrainingSet, library: Library, ids: Sequence[str]
) -> list[dict[str, str | None]]:
    """Return for every pair the origin of its image and its negative; `ids` are the pool's."""
    return [
        {
            "picture": pair.id,
            "prompt": pair.prompt,
            "class": pair.label,
            "negative": ids[negative] if negative >= 0 else None,
            "license": library.items[pair.id].license,
            "source": library.items[pair.id].source,
            "author": library.items[pair.id].author,
        }
        for pair, negative in zip(training_set.pairs, training_set.negatives.tolist(), strict=True)
    ]


def _labels(pairs: Sequence[Pair], rows: Numbers, size: int) -> Numbers:
    """Number the classes, and return that of each of `size` images, -1 for none."""
    names, numbers = np.unique([pair.label for pair in pairs], return_inverse=True)
    if len(names) < 2:
        raise BadInput(f"The library has images of {len(names)} classes with a prompt; accepted: 2 or more.")
    labels = np.full(size, -1, dtype=np.int64)
    labels[rows] = numbers
    return labels


def _embed_samples(
    pairs: Sequence[Pair], samples: Sequence[Sample], encoder: Encoder, store: ArtifactStore
) -> Vectors:
    """Embed for each pair the next of its prompt's samples, from the first again after the last: [n, dim]."""
    vectors = np.concatenate([encoder.encode_images([store.open(sample.picture)]) for sample in samples])
    rows: dict[str, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        rows[sample.prompt].append(row)
    turns = {prompt: cycle(of_prompt) for prompt, of_prompt in rows.items()}
    embedded: Vectors = vectors[[next(turns[pair.prompt]) for pair in pairs]]
    return embedded


def find_negatives(
    samples: Vectors, rows: Numbers, pool: Vectors, contents: Numbers, labels: Numbers, collisions: str
) -> Numbers:
    """Return for each pair the pool's row nearest to its sample (equation 4), -1 for none.

    Never the positive or a copy of it, and with `collisions` "class" nothing of its class.
    """
    negatives = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), BLOCK):
        positive = rows[start : start + BLOCK, None]
        excluded = contents[None] == contents[positive]
        if collisions == "class":
            excluded |= labels[None] == labels[positive]
        cosines = np.where(excluded, -np.inf, samples[start : start + BLOCK] @ pool.T)
        negatives[start : start + BLOCK] = np.where(excluded.all(1), -1, cosines.argmax(1))
    return negatives
