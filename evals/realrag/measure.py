"""Train, look up and draw: the measurements behind `pleinair.evals.realrag.run`.

A library is written for every seed, each caption naming its species if it is one, so that what was found can
be judged. What is in the work folder is not made again.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle, islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pleinair.agent.state import Output, changed
from pleinair.evals.pocket.oracle import Oracle
from pleinair.evals.realrag.library import NAMES, TIERS, names_of, write_library
from pleinair.evals.realrag.likeness import Truth, features, real_like
from pleinair.evals.realrag.report import COLUMNS
from pleinair.graphs import direct, realrag
from pleinair.tools.pocket.prompts import PLACES
from pleinair.tools.pocket.world import SPECIES, Species, fingerprint
from pleinair.tools.realrag import Loss, RealRAGOptions
from pleinair.tools.retrieval.index import Index, IndexRetriever, build_index
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.realrag.data import (
    Lesson,
    draw_samples,
    make_lesson,
    pairs_by_name,
    prompt_for,
)
from pleinair.tools.retrieval.realrag.reflective import (
    Card,
    Choices,
    ReflectiveEncoder,
    checkpoint,
    load_head,
)
from pleinair.tools.retrieval.realrag.training import train

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.agent.context import Context
    from pleinair.tools.types import Encoder, Vectors

LOSSES: tuple[Loss, ...] = ("normal", "reflective")
ENCODER = {"model": "local-dir:pocket/encoder", "device": "cpu"}
HELD_OUT = 1_000_000  # seed of the library that nothing is trained on
WORDINGS = ("", *(f" {words[0]}" for words in PLACES.values()))  # after the paper's prompt


@dataclass(frozen=True, slots=True)
class Found:
    """Tell whether the first picture found for one wording of a name shows that species."""

    seed: int
    tier: str
    name: str
    library: str  # "seen" in training, or "held out"
    method: str
    epoch: int  # 0 for zero
    right: bool


@dataclass(frozen=True, slots=True)
class Drawn:
    """Judge one picture: how like it is to real ones, and the oracle's features of it."""

    seed: int
    tier: str
    name: str
    column: str
    right: bool
    likeness: dict[str, float]
    features: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Hold what all seeds share."""

    work: Path
    choices: Choices
    each: int  # pictures of a species in a library
    look_alikes: int  # in a library
    context: Context
    encoder: Encoder
    oracle: Oracle

    def library(self, seed: int) -> Library:
        """Open a library of every species, written on first use."""
        folder = self.work / f"library-{fingerprint()}-{self.each}-{self.look_alikes}-{seed}"
        if not folder.exists():
            write_library(folder, seed, self.each, self.look_alikes)
        return Library.open(folder)

    @cached_property
    def truth(self) -> Truth:
        """Look at the held-out pictures."""
        return Truth(self.library(HELD_OUT), self.encoder, self.oracle)

    def index(self, library: Library, encoder: Encoder) -> Index:
        """Index a library, or open the index of an earlier run."""
        name = hashlib.sha256(encoder.id.encode()).hexdigest()[:12]
        return build_index(library, encoder, self.work / f"index-{library.folder.name}-{name}")


def teach(bench: Bench, library: Library, index: Index, loss: Loss, seed: int) -> tuple[Card, Path]:
    """Train one retriever, or find it trained; the folder's name depends on all that it was trained with."""
    choices = bench.choices.model_copy(update={"loss": loss, "seed": seed})
    lesson = _lesson_for(bench, library, index, choices)
    card = Card(
        choices=choices,
        generator=bench.context.generator.capabilities.id,
        encoder=bench.encoder.id,
        engine="open_clip",
        arguments=ENCODER,
        dim=lesson.pool.shape[1],
        lesson=lesson.digest,
    )
    name = hashlib.sha256(card.model_dump_json().encode()).hexdigest()[:12]
    folder = bench.work / f"{loss}-{seed}-{name}"
    for epoch, mean_loss in train(lesson, card, folder):
        _tell(f"seed {seed} {loss}: epoch {epoch}, loss {mean_loss:.3f}")
    return card, folder


def _lesson_for(bench: Bench, library: Library, index: Index, choices: Choices) -> Lesson:
    """Draw the samples, which all seeds share, and find the negatives."""
    samples = draw_samples(
        [prompt_for(name) for name in NAMES] if choices.loss == "reflective" else [],
        generator=bench.context.generator,
        store=bench.context.store,
        each=choices.samples,
        on_progress=lambda done, total: _tell(f"sample {done} of {total}"),
    )
    return make_lesson(
        pairs_by_name(library.items.values(), NAMES),
        samples,
        index=index,
        encoder=bench.encoder,
        store=bench.context.store,
        choices=choices,
    )


def find_all(
    seed: int, where: str, method: str, epoch: int, vectors: Vectors, names: Sequence[str], queries: Vectors
) -> Iterator[Found]:
    """Look every wording of every name up; `queries` are in the order of `questions`."""
    best = (queries @ vectors.T).argmax(1)
    for (species, _), row in zip(questions(), best, strict=True):
        yield Found(seed, species.tier, species.name, where, method, epoch, names[row] == species.name)


def questions() -> list[tuple[Species, str]]:
    """Pair every species with every wording of its prompt."""
    return [(one, f"{prompt_for(one.name)}{words}") for one, words in product(SPECIES, WORDINGS)]


def find_with(bench: Bench, seed: int, taught: Sequence[tuple[Card, Path]]) -> Iterator[Found]:
    """Measure zero and every checkpoint in the library of the seed and in the held-out one."""
    queries = bench.encoder.encode_text([prompt for _, prompt in questions()])
    for where, library in (("seen", bench.library(seed)), ("held out", bench.library(HELD_OUT))):
        index = bench.index(library, bench.encoder)
        pool, names = np.stack([index.vector(id) for id in index.ids]), names_of(library, index.ids)
        yield from find_all(seed, where, "zero", 0, pool, names, queries)
        for card, folder in taught:
            for epoch in range(2, card.choices.epochs + 1, 2):
                with torch.inference_mode():
                    vectors = load_head(checkpoint(folder, epoch), card)(torch.from_numpy(pool)).numpy()
                yield from find_all(seed, where, card.choices.loss, epoch, vectors, names, queries)


def contexts(bench: Bench, seed: int, taught: Sequence[tuple[Card, Path]]) -> dict[str, Context]:
    """Give every column its retriever over the library of the seed."""
    library = bench.library(seed)
    encoders: dict[str, Encoder] = {"zero": bench.encoder, "self_contrast": bench.encoder}
    encoders |= {card.choices.loss: ReflectiveEncoder(str(folder)) for card, folder in taught}
    made = {
        column: replace(
            bench.context,
            retriever=IndexRetriever(library, bench.index(library, encoder), encoder),
            realrag=RealRAGOptions.model_validate({"method": column}),
        )
        for column, encoder in encoders.items()
    }
    return {"base": bench.context} | made


def draw_all(bench: Bench, seed: int, made: dict[str, Context], prompts: int) -> Iterator[Drawn]:
    """Draw the paper's prompt for `prompts` species of the tiers in turn, in every column, and judge."""
    truth = bench.truth
    for number, species in enumerate(chosen(prompts)):
        for column in COLUMNS:
            image = _draw_one(made[column], column, species, noise=seed * 100_000 + number)
            yield Drawn(
                seed,
                species.tier,
                species.name,
                column,
                bench.oracle.shows(image, [species.name])[species.name],
                truth.likeness(image, species.name, prompt_for(species.name)),
                tuple(features(bench.oracle.maps(image)).tolist()),
            )
            _tell(f"seed {seed}: picture {number + 1} of {prompts}, {column}")


def distances(bench: Bench, drawn: Sequence[Drawn]) -> dict[str, float]:
    """Give each column's Fréchet distance, and that of as many real pictures."""
    names = [one.name for one in drawn if one.column == "base"]
    columns = {
        column: np.asarray([one.features for one in drawn if one.column == column]) for column in COLUMNS
    }
    columns["real"] = real_like(bench.library(0), bench.oracle, names)
    return bench.truth.distances(columns, names)


def chosen(prompts: int) -> Iterator[Species]:
    """Take a species of each tier in turn, the tiers' own in random order and again from the start."""
    rng = random.Random("realrag")
    tiers = [[one for one in SPECIES if one.tier == tier] for tier in TIERS]
    turns = [cycle(rng.sample(tier, len(tier))) for tier in tiers]
    return islice((next(turn) for turn in cycle(turns)), prompts)


def _draw_one(context: Context, column: str, species: Species, noise: int) -> Image:
    """Run the graph; the same request of an earlier run is taken from the store."""
    graph: Any = direct.graph if column == "base" else realrag.graph
    given = changed(prompt=prompt_for(species.name), seed=noise)
    output = Output.model_validate(graph.invoke(given, context=context))
    assert output.outcome is not None and output.outcome.best is not None, output
    return context.store.open(output.outcome.best.picture)


def _tell(line: str) -> None:
    """Say on standard error how far it is."""
    sys.stderr.write(f"\r{line:<70}")
    sys.stderr.flush()
