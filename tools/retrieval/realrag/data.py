"""Training set of a reflective retriever: prompts, their images, and what the generator generates instead.

RealRAG (Lyu et al., ICML 2025, section 3.1 and equation 4). The negative of a pair is the library's image
that is most similar to the generator's own for its prompt. Negatives are selected once, by the frozen tower:
the paper does not say whether they follow the training. Not covered: captions that a model has to write
first.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from pleinair.tools.callbacks import no_callback
from pleinair.tools.generate import generate
from pleinair.tools.retrieval.realrag.pairs import Pair, require_classes
from pleinair.tools.types import Encoder, GenerateRequest, Generator, Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.realrag import Sampling
    from pleinair.tools.retrieval.index import Index
    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.retrieval.realrag.reflective import ReflectiveOptions
    from pleinair.tools.storage.artifacts import ArtifactStore
    from pleinair.tools.types import Vectors

    Numbers = NDArray[np.int64]

BATCH = 64  # texts or images embedded at a time
CELLS = 2**26  # cosines in memory at a time


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
    ids: tuple[str, ...]  # m of them, the pool's
    pool: Vectors  # [m, dim], every image that may be a negative
    contents: Numbers  # [m], equal for images of the same bytes
    labels: Numbers  # [m], the image's class, -1 for none
    rows: Numbers  # [n], the pairs' images as rows of the pool
    texts: Vectors  # [t, dim], the different prompts
    prompts: Numbers  # [n], the pairs' prompts as rows of the texts
    negatives: Numbers  # [n], rows of the pool, -1 if no image may be one
    digest: str  # of images, prompts, classes and negatives


def generate_samples(
    prompts: Sequence[str],
    *,
    generator: Generator,
    sampling: Sampling,
    store: ArtifactStore,
    each: int,
    on_progress: Callable[[int, int], None],
) -> list[Sample]:
    """Generate an image without references for every prompt and each of `each` seeds.

    The store caches an image under prompt, seed and `sampling`, so that trainings share them, also of
    generators that differ only in how they use references.
    """
    samples, values = list[Sample](), sampling.model_dump(exclude={"sampler"})
    for prompt in prompts:
        for seed in range(each):
            request = GenerateRequest(prompt=prompt, seed=seed, **values)
            picture = generate(
                request, generator=generator, store=store, identity=sampling.sampler, on_step=no_callback
            )
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
    on_progress: Callable[[int, int], None] = no_callback,
) -> TrainingSet:
    """Embed prompts and samples and select each pair's negative; the library's vectors are the index's.

    Pairs whose image the index skipped are dropped. Without samples there are no negatives.

    Args:
        pairs: images with their prompts.
        samples: of each prompt one or more, or none at all.
        index: of the library.
        encoder: the frozen one of the index.
        store: with the samples' images.
        options: of the training.
        on_progress: receives the samples embedded and in total.

    Raises:
        BadInput: fewer than two classes remain.
    """
    row_of = {id: row for row, id in enumerate(index.ids)}
    pairs = [pair for pair in pairs if pair.id in row_of]
    rows = np.array([row_of[pair.id] for pair in pairs], dtype=np.int64)
    labels = _labels(pairs, rows, len(row_of))
    pool = np.stack([index.vector(id) for id in index.ids])
    hashes = list(index.catalogue.rows("sha256"))
    contents = np.unique(hashes, return_inverse=True)[1]
    prompts, prompt_of = np.unique([pair.prompt for pair in pairs], return_inverse=True)
    negatives = np.full(len(rows), -1, dtype=np.int64)
    if samples:
        images = _embed_samples(samples, encoder, store, on_progress)
        numbers = _samples_of(pairs, samples)
        negatives = find_negatives(images, numbers, rows, pool, contents, labels, options.collisions)
    facts = [hashes, [(pair.id, pair.prompt, pair.label) for pair in pairs], negatives.tolist()]
    return TrainingSet(
        pairs=tuple(pairs),
        ids=index.ids,
        pool=pool,
        contents=contents,
        labels=labels,
        rows=rows,
        texts=_embed_texts(prompts.tolist(), encoder),
        prompts=prompt_of,
        negatives=negatives,
        digest=hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16],
    )


def describe_pairs(training_set: TrainingSet, library: Library) -> list[dict[str, str | None]]:
    """Return for every pair the origin of its image and its negative."""
    return [
        {
            "picture": pair.id,
            "prompt": pair.prompt,
            "class": pair.label,
            "negative": training_set.ids[negative] if negative >= 0 else None,
            "license": library.items[pair.id].license,
            "source": library.items[pair.id].source,
            "author": library.items[pair.id].author,
        }
        for pair, negative in zip(training_set.pairs, training_set.negatives.tolist(), strict=True)
    ]


def _labels(pairs: Sequence[Pair], rows: Numbers, size: int) -> Numbers:
    """Number the classes, and return that of each of `size` images, -1 for none."""
    names, numbers = np.unique([pair.label for pair in pairs], return_inverse=True)
    require_classes(pairs)
    labels = np.full(size, -1, dtype=np.int64)
    labels[rows] = numbers
    return labels


def _embed_texts(texts: Sequence[str], encoder: Encoder) -> Vectors:
    parts = [encoder.encode_text(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    vectors: Vectors = np.concatenate(parts)
    return vectors


def _embed_samples(
    samples: Sequence[Sample],
    encoder: Encoder,
    store: ArtifactStore,
    on_progress: Callable[[int, int], None],
) -> Vectors:
    """Embed the samples, a batch at a time: [s, dim]."""
    vectors = list[Any]()
    for start in range(0, len(samples), BATCH):
        images = [store.open(sample.picture) for sample in samples[start : start + BATCH]]
        vectors.append(encoder.encode_images(images))
        on_progress(start + len(images), len(samples))
    embedded: Vectors = np.concatenate(vectors)
    return embedded


def _samples_of(pairs: Sequence[Pair], samples: Sequence[Sample]) -> Numbers:
    """Return the number of each pair's sample, [n]: its prompt's next, after the last the first again."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        numbers[sample.prompt].append(number)
    turns = {prompt: cycle(of_prompt) for prompt, of_prompt in numbers.items()}
    return np.array([next(turns[pair.prompt]) for pair in pairs], dtype=np.int64)


def find_negatives(
    samples: Vectors,
    numbers: Numbers,
    rows: Numbers,
    pool: Vectors,
    contents: Numbers,
    labels: Numbers,
    collisions: str,
) -> Numbers:
    """Return for each pair the pool's row that is most similar to its sample (equation 4), -1 for none.

    Never the positive or a copy of it, and with `collisions` "class" nothing of its class. The pairs of a
    sample and class are compared with the pool once.

    Args:
        samples: embedded, [s, dim].
        numbers: of each pair's sample, [n].
        rows: of each pair's image in the pool, [n].
        pool: the library's images, [m, dim].
        contents: of the pool's images, equal for copies, [m].
        labels: their classes, -1 for none, [m].
        collisions: "image" or "class".
    """
    negatives = np.full(len(rows), -1, dtype=np.int64)
    groups, group_of = np.unique(np.stack([numbers, labels[rows]]), axis=1, return_inverse=True)
    members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(np.bincount(group_of))[:-1])
    block = max(1, CELLS // len(pool))
    for start in range(0, len(members), block):
        sample, label = groups[:, start : start + block]
        cosines = samples[sample] @ pool.T
        if collisions == "class":
            cosines[labels[None] == label[:, None]] = -np.inf
        for row, pairs in zip(cosines, members[start : start + block], strict=True):
            first = _best(row)
            second = _best(np.where(contents == contents[first], -np.inf, row))
            negatives[pairs] = np.where(contents[rows[pairs]] == contents[first], second, first)
    return negatives


def _best(cosines: Any) -> int:
    """Return the place of the highest cosine, -1 if all are excluded."""
    place = int(cosines.argmax())
    return place if np.isfinite(cosines[place]) else -1
