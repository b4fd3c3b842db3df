"""What a reflective retriever learns from: prompts with their pictures, and what the generator draws instead.

RealRAG (Lyu et al., ICML 2025, section 3.1 and equation 4). The negative of a pair is the library's picture
that is most like the generator's own for its prompt. Negatives are looked for once, by the frozen tower: the
paper does not say whether they follow the training. Not covered: captions that a model has to write first.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from pleinair.tools.generate import generate
from pleinair.tools.retrieval.library import Item, Library
from pleinair.tools.types import BadInput, Capabilities, Encoder, GenerateRequest, Generator, Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.retrieval.index import Index
    from pleinair.tools.retrieval.realrag.reflective import Choices
    from pleinair.tools.storage.artifacts import ArtifactStore
    from pleinair.tools.types import Vectors

    Numbers = NDArray[np.int64]

BLOCK = 1024  # rows compared with the library at a time
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Pair:
    """Tie a library picture to the prompt that it answers and to its class."""

    id: str
    prompt: str
    label: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Keep what the generator drew for a prompt; `picture` names its bytes in the store."""

    prompt: str
    seed: int
    picture: Picture

    def record(self) -> dict[str, str | int]:
        """Say what was drawn, and the hash of its bytes."""
        return {"prompt": self.prompt, "seed": self.seed, "sha256": self.picture.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Hold all that a training sees, as numbers: the towers are frozen, so nothing is embedded twice."""

    pairs: tuple[Pair, ...]  # n of them
    pool: Vectors  # [m, dim], every picture of the library
    contents: Numbers  # [m], equal where two pictures are the same bytes
    labels: Numbers  # [m], the picture's class, -1 where it has none
    rows: Numbers  # [n], the pairs' pictures as rows of the pool
    texts: Vectors  # [n, dim], the pairs' prompts
    negatives: Numbers  # [n], rows of the pool, -1 where no picture may be one
    digest: str  # of pictures, prompts, classes and negatives, so that no other lesson is taken for it


def pairs_by_caption(items: Iterable[Item]) -> list[Pair]:
    """Take every caption as a prompt and as a class of its own; pictures without one are left out."""
    return [Pair(one.id, one.caption, one.caption.casefold()) for one in items if one.caption]


def pairs_by_folder(items: Iterable[Item]) -> list[Pair]:
    """Take the name of a picture's folder as its class; pictures in the library's own folder are left out."""
    named = ((one.id, PurePosixPath(one.id).parent.name.replace("_", " ")) for one in items)
    return [Pair(id, prompt_for(label), label) for id, label in named if label]


def pairs_by_name(items: Iterable[Item], names: Sequence[str]) -> list[Pair]:
    """Take the one name that a picture's caption has; captions with none or with several are left out."""
    words = {name: re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE) for name in names}
    found = ((one.id, [name for name in names if words[name].search(one.caption)]) for one in items)
    return [Pair(id, prompt_for(few[0]), few[0]) for id, few in found if len(few) == 1]


def prompt_for(label: str) -> str:
    """Write the paper's prompt for a class (section 4)."""
    return f"a photo of a {label}"


def draw_samples(
    prompts: Sequence[str],
    *,
    generator: Generator,
    store: ArtifactStore,
    each: int,
    on_progress: OnProgress,
) -> list[Sample]:
    """Draw every prompt without references under `each` seeds; what is in the store is not drawn again.

    The store files a picture under the generator's id and the whole request, seed included.
    """
    wanted = [(prompt, seed) for prompt in prompts for seed in range(each)]
    drawn = []
    for prompt, seed in wanted:
        request = _plain_request(prompt, seed, generator.capabilities)
        picture = generate(request, generator=generator, store=store, on_step=lambda done, total: None)
        drawn.append(Sample(prompt, seed, picture))
        on_progress(len(drawn), len(wanted))
    return drawn


def _plain_request(prompt: str, seed: int, able: Capabilities) -> GenerateRequest:
    """Ask for a prompt at the generator's own size and steps, without references."""
    return GenerateRequest(
        prompt=prompt,
        height=able.height,
        width=able.width,
        num_inference_steps=able.num_inference_steps,
        guidance_scale=able.guidance_scale,
        seed=seed,
    )


def make_lesson(
    pairs: Sequence[Pair],
    samples: Sequence[Sample],
    *,
    index: Index,
    encoder: Encoder,
    store: ArtifactStore,
    choices: Choices,
) -> Lesson:
    """Embed prompts and samples and find each pair's negative; the library's vectors are the index's.

    Pairs whose picture the index skipped are left out. Without samples there are no negatives. Raise
    `BadInput` when fewer than two classes are left.
    """
    at = {id: row for row, id in enumerate(index.ids)}
    pairs = [pair for pair in pairs if pair.id in at]
    rows = np.array([at[pair.id] for pair in pairs], dtype=np.int64)
    labels = _labels_of(pairs, rows, len(at))
    pool = np.stack([index.vector(id) for id in index.ids])
    contents = _numbered([file.sha256 for file in index.manifest.files])
    negatives = np.full(len(rows), -1, dtype=np.int64)
    if samples:
        drawn = _drawn_for(pairs, samples, encoder, store)
        negatives = find_negatives(drawn, rows, pool, contents, labels, choices.collisions)
    return Lesson(
        pairs=tuple(pairs),
        pool=pool,
        contents=contents,
        labels=labels,
        rows=rows,
        texts=encoder.encode_text([pair.prompt for pair in pairs]),
        negatives=negatives,
        digest=_digest_of(index, pairs, negatives),
    )


def records(lesson: Lesson, library: Library, ids: Sequence[str]) -> list[dict[str, str | None]]:
    """Say of every pair where its picture is from and what its negative is; `ids` are the pool's."""
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
        for pair, negative in zip(lesson.pairs, lesson.negatives.tolist(), strict=True)
    ]


def _labels_of(pairs: Sequence[Pair], rows: Numbers, size: int) -> Numbers:
    """Number the classes and give each of `size` pictures its own, -1 for none."""
    number = {label: n for n, label in enumerate(sorted({pair.label for pair in pairs}))}
    if len(number) < 2:
        raise BadInput(f"The library has pictures of {len(number)} classes with a prompt; wanted 2 or more.")
    labels = np.full(size, -1, dtype=np.int64)
    labels[rows] = [number[pair.label] for pair in pairs]
    return labels


def _digest_of(index: Index, pairs: Sequence[Pair], negatives: Numbers) -> str:
    """Name a lesson by what is in it, in sixteen hexadecimal digits; vectors follow from the encoder's id."""
    pictures = [file.sha256 for file in index.manifest.files]
    known = [(pair.id, pair.prompt, pair.label) for pair in pairs]
    return hashlib.sha256(json.dumps([pictures, known, negatives.tolist()]).encode()).hexdigest()[:16]


def _numbered(names: Sequence[str]) -> Numbers:
    """Give equal names equal numbers."""
    number = {name: n for n, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], dtype=np.int64)


def _drawn_for(
    pairs: Sequence[Pair], samples: Sequence[Sample], encoder: Encoder, store: ArtifactStore
) -> Vectors:
    """Embed for each pair one of its prompt's samples, in turn: [n, dim]."""
    vectors = np.concatenate([encoder.encode_images([store.open(one.picture)]) for one in samples])
    of_prompt: dict[str, list[int]] = {}
    for number, one in enumerate(samples):
        of_prompt.setdefault(one.prompt, []).append(number)
    chosen: Vectors = vectors[list(_in_turn([pair.prompt for pair in pairs], of_prompt))]
    return chosen


def _in_turn(prompts: Sequence[str], of_prompt: Mapping[str, Sequence[int]]) -> Iterator[int]:
    """Give each prompt the next of its numbers, from the first again after the last."""
    used: dict[str, int] = {}
    for prompt in prompts:
        turn = used.get(prompt, 0)
        used[prompt] = turn + 1
        yield of_prompt[prompt][turn % len(of_prompt[prompt])]


def find_negatives(
    drawn: Vectors, rows: Numbers, pool: Vectors, contents: Numbers, labels: Numbers, collisions: str
) -> Numbers:
    """Find for each pair the pool's row nearest to what the generator drew (equation 4), -1 for none.

    Never the positive or a copy of it, and with `collisions` "class" nothing of its class.
    """
    found = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), BLOCK):
        own = rows[start : start + BLOCK, None]
        banned = contents[None] == contents[own]
        if collisions == "class":
            banned |= labels[None] == labels[own]
        cosines = np.where(banned, -np.inf, drawn[start : start + BLOCK] @ pool.T)
        found[start : start + BLOCK] = np.where(banned.all(1), -1, cosines.argmax(1))
    return found
