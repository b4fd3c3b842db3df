"""Train RealRAG's retrievers, retrieve and generate with them, and compare the images with real ones.

A library is written for every seed; its boxes name the species, so that hits can be judged. A look-alike is
no species and has no box, so that it is no positive of a training, and to retrieve it is wrong. It may be a
reflective negative: half of them are a rare or novel species with two details exchanged, half a kind's plain
look, as the generator draws a name that it does not know. What is in the work folder is not computed again.

CLIP-T and CLIP-I are by the frozen encoder, which also did the retrieval; there is no second one. Looks,
style loss and the Fréchet distance are by the oracle's layers, which no tool ever reads. They stand for the
papers' DINO, style loss and FID, and are none of them: the oracle was trained on this world's species.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle, islice, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from PIL.Image import Image

from pleinair.agent.context import Context
from pleinair.evals.cases import Case
from pleinair.evals.papers.cases import UNKNOWN, record
from pleinair.evals.papers.report import Record
from pleinair.evals.pocket.oracle import Oracle
from pleinair.evals.run import invoke, show_progress
from pleinair.evals.scores.frechet import frechet
from pleinair.evals.scores.style import style_loss
from pleinair.graphs import direct, realrag
from pleinair.tools.pocket.catalogue.captions import caption
from pleinair.tools.pocket.catalogue.language.prompts import PLACE_WORDS
from pleinair.tools.pocket.catalogue.library import write_novel
from pleinair.tools.pocket.catalogue.sampling import draw_scene, fingerprint, impostor, plain_look
from pleinair.tools.pocket.catalogue.species import SPECIES, Species
from pleinair.tools.realrag import Loss, RealRAGOptions, Sampling
from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.dense import IndexRetriever
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.realrag.data import (
    build_training_set,
    generate_samples,
)
from pleinair.tools.retrieval.realrag.pairs import Pair, prompt_for
from pleinair.tools.retrieval.realrag.reflective import (
    ReflectiveEncoder,
    ReflectiveOptions,
    TrainingConfig,
    checkpoint,
    load_head,
)
from pleinair.tools.retrieval.realrag.training import train

if TYPE_CHECKING:
    from pleinair.evals.scores.style import Maps
    from pleinair.tools.types import Encoder, Vectors

TIERS = ("known", "rare", "novel")
NAMES = [species.name for species in SPECIES]
LOSSES: tuple[Loss, ...] = ("normal", "reflective")
COLUMNS = ("base", "zero", *LOSSES, "self_contrast")
ENCODER = {"model": "local-dir:pocket/catalogue/encoder", "device": "cpu"}
HELD_OUT = 1_000_000  # seed of the library that nothing is trained on
WORDINGS = ("", *(f" {words[0]}" for words in PLACE_WORDS.values()))  # after the paper's prompt

Trained = tuple[TrainingConfig, Path]  # a retriever and its folder


def write_library(folder: Path, seed: int, each: int, look_alikes: int) -> None:
    """Write `each` clean images of every species and so many look-alikes."""
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    write_novel(draft, seed=seed, each=each, tiers=TIERS)
    rng = random.Random(f"look-alikes-{seed}")
    with (draft / "metadata.jsonl").open("a", encoding="utf-8") as file:
        for number in range(look_alikes):
            look = plain_look(rng) if number % 2 else impostor(rng, rng.choice(UNKNOWN))
            scene, name = draw_scene(rng, [look]), f"look-alike-{number:05d}.png"
            item = record(name, scene, caption(rng, scene, by_name=False), f"look-alikes-{seed}")
            item.image.save(draft / name)
            file.write(json.dumps({"file_name": name, **item.line}) + "\n")
    draft.rename(folder)


def names_of(library: Library, ids: Iterable[str]) -> list[str]:
    """Return the species of each image, which its box names; that of a look-alike is empty."""
    return [next(iter(library.items[id].boxes), "") for id in ids]


def pairs_of(library: Library) -> list[Pair]:
    """Return the prompts of a library's species; captions would be ambiguous: "blood orange", "orange"."""
    names = zip(library.items, names_of(library, library.items), strict=True)
    return [Pair(id, prompt_for(name), name) for id, name in names if name]


class RealImages:
    """Real images of every species, embedded by the encoder and the oracle."""

    def __init__(self, library: Library, encoder: Encoder, oracle: Oracle) -> None:
        self._encoder, self._oracle = encoder, oracle
        images = [library.picture(id) for id in library.items]
        self._names = np.asarray(names_of(library, library.items))
        self._embeddings = encoder.encode_images(images)
        self._maps = [oracle.maps(image) for image in images]
        self._features = np.stack([features(maps) for maps in self._maps])

    def similarity(self, image: Image, name: str, prompt: str) -> dict[str, float]:
        """Compare an image with its prompt, and with the real ones of its species: means over those."""
        rows = np.flatnonzero(self._names == name)
        (vector,), (text,) = self._encoder.encode_images([image]), self._encoder.encode_text([prompt])
        maps = self._oracle.maps(image)
        return {
            "CLIP-T": float(vector @ text),
            "CLIP-I": float((self._embeddings[rows] @ vector).mean()),
            "looks": float((self._features[rows] @ features(maps)).mean()),
            "style loss": float(np.mean([style_loss(maps, self._maps[row]) for row in rows])),
        }

    def distance(self, rows: Vectors, names: Sequence[str]) -> float:
        """Return the Fréchet distance of features to those of the real images of these species."""
        return frechet(rows, self._features[np.isin(self._names, names)])


def features(maps: Maps) -> Vectors:
    """Average the last layer over positions: [channels], of length 1."""
    mean = maps[-1].mean(axis=(1, 2))
    vector: Vectors = mean / np.linalg.norm(mean)
    return vector


def real_features(library: Library, oracle: Oracle, names: Sequence[str]) -> Vectors:
    """Return the features of as many other real images of the species: those of a perfect generator."""
    pairs = list(zip(library.items, names_of(library, library.items), strict=True))
    rows = []
    for place, name in enumerate(names):
        ids = [id for id, label in pairs if label == name]
        rows.append(features(oracle.maps(library.picture(ids[names[:place].count(name) % len(ids)]))))
    return np.stack(rows)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Engines and settings that all seeds share."""

    work: Path
    choices: ReflectiveOptions
    each: int  # images of a species in a library
    look_alikes: int  # in a library
    context: Context
    encoder: Encoder
    oracle: Oracle

    def library(self, seed: int) -> Library:
        """Open a library of every species, written at its first use."""
        folder = self.work / f"library-{fingerprint()}-{self.each}-{self.look_alikes}-{seed}"
        if not folder.exists():
            write_library(folder, seed, self.each, self.look_alikes)
        return Library.open(folder)

    @cached_property
    def real(self) -> RealImages:
        """Embed the held-out images."""
        return RealImages(self.library(HELD_OUT), self.encoder, self.oracle)

    def index(self, library: Library, encoder: Encoder) -> Index:
        """Index a library, or open the index of an earlier run."""
        name = hashlib.sha256(encoder.id.encode()).hexdigest()[:12]
        return build_index(library, encoder, self.work / f"index-{library.folder.name}-{name}")


def train_retriever(bench: Bench, library: Library, index: Index, loss: Loss, seed: int) -> Trained:
    """Train a retriever, or open it; the folder's name depends on all that it is trained with."""
    choices = bench.choices.model_copy(update={"loss": loss, "seed": seed})
    generator, store = bench.context.generator, bench.context.store
    samples = generate_samples(  # all seeds share them
        [prompt_for(name) for name in NAMES] if loss == "reflective" else [],
        generator=generator,
        sampling=Sampling.of(generator.capabilities),
        store=store,
        each=choices.samples,
        on_progress=lambda done, total: show_progress(f"sample {done} of {total}"),
    )
    pairs, encoder = pairs_of(library), bench.encoder
    lesson = build_training_set(pairs, samples, index=index, encoder=encoder, store=store, options=choices)
    config = TrainingConfig(
        choices=choices,
        generator=generator.capabilities.id,
        sampling=Sampling.of(generator.capabilities) if loss == "reflective" else None,
        encoder=encoder.id,
        engine="open_clip",
        arguments=ENCODER,
        dim=lesson.pool.shape[1],
        lesson=lesson.digest,
    )
    name = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:12]
    folder = bench.work / f"{loss}-{seed}-{name}"
    for epoch, mean_loss in train(lesson, config, folder):
        show_progress(f"seed {seed} {loss}: epoch {epoch}, loss {mean_loss:.3f}")
    return config, folder


def queries() -> list[tuple[Species, str]]:
    """Return every species with every wording of its prompt."""
    return [(species, f"{prompt_for(species.name)}{words}") for species, words in product(SPECIES, WORDINGS)]


def retrievals(bench: Bench, seed: int, trained: Sequence[Trained]) -> Iterator[Record]:
    """Measure the untrained encoder and every checkpoint in the library of the seed and the held-out one."""
    texts = bench.encoder.encode_text([prompt for _, prompt in queries()])
    for name, library in (("seen", bench.library(seed)), ("held out", bench.library(HELD_OUT))):
        index = bench.index(library, bench.encoder)
        vectors, names = np.stack([index.vector(id) for id in index.ids]), names_of(library, index.ids)
        about = {"seed": seed, "measure": f"R@1, library {name}"}
        yield from recalls(about | {"column": "zero", "epoch": 0}, vectors, names, texts)
        for config, folder in trained:
            for epoch in range(2, config.choices.epochs + 1, 2):
                with torch.inference_mode():
                    adapted = load_head(checkpoint(folder, epoch), config)(torch.from_numpy(vectors)).numpy()
                column = {"column": config.choices.loss, "epoch": epoch}
                yield from recalls(about | column, adapted, names, texts)


def recalls(about: Record, vectors: Vectors, names: Sequence[str], texts: Vectors) -> Iterator[Record]:
    """Yield for each of `queries`, embedded as `texts`, whether the first image shows the species."""
    measure = about.pop("measure")
    best = (texts @ vectors.T).argmax(1)
    for (species, prompt), row in zip(queries(), best, strict=True):
        case = {"tier": species.tier, "name": species.name, "case": prompt}
        yield about | case | {"measures": {measure: float(names[row] == species.name)}}


def make_contexts(bench: Bench, seed: int, trained: Sequence[Trained]) -> dict[str, Context]:
    """Return every column's context, with its retriever over the library of the seed."""
    library = bench.library(seed)
    encoders: dict[str, Encoder] = {"zero": bench.encoder, "self_contrast": bench.encoder}
    encoders |= {config.choices.loss: ReflectiveEncoder(str(folder)) for config, folder in trained}
    contexts = {
        column: replace(
            bench.context,
            retriever=IndexRetriever(library, bench.index(library, encoder), encoder),
            paper_retriever=None,
            realrag=RealRAGOptions.model_validate({"method": column}),
        )
        for column, encoder in encoders.items()
    }
    return {"base": bench.context} | contexts


def generations(bench: Bench, seed: int, contexts: dict[str, Context], prompts: int) -> Iterator[Record]:
    """Generate the paper's prompt for `prompts` species of the tiers in turn, in every column, and judge."""
    graphs = dict.fromkeys(COLUMNS, realrag.graph) | {"base": direct.graph}
    for number, species in enumerate(species_in_turn(prompts)):
        prompt = prompt_for(species.name)
        case = Case(str(number), species.tier, prompt, (species.name,), seed=seed * 100_000 + number)
        for column, graph in graphs.items():
            outcome = invoke(case, graph, contexts[column]).outcome
            assert outcome is not None and outcome.best is not None, outcome
            image = bench.context.store.open(outcome.best.picture)
            right = bench.oracle.shows(image, [species.name])[species.name]
            similarity = bench.real.similarity(image, species.name, prompt)
            yield {
                "seed": seed,
                "tier": species.tier,
                "name": species.name,
                "case": case.id,
                "column": column,
                "measures": {"right": float(right), **similarity},
                "features": features(bench.oracle.maps(image)),
            }
            show_progress(f"seed {seed}: image {number + 1} of {prompts}, {column}")


def species_in_turn(prompts: int) -> Iterator[Species]:
    """Yield a species of each tier in turn, each tier's own in random order and again from the start."""
    rng = random.Random("realrag")
    tiers = [[species for species in SPECIES if species.tier == tier] for tier in TIERS]
    turns = [cycle(rng.sample(tier, len(tier))) for tier in tiers]
    return islice((next(turn) for turn in cycle(turns)), prompts)


def distances(bench: Bench, generated: Sequence[Record]) -> dict[str, float]:
    """Return each column's Fréchet distance, and as "real" that of as many real images."""
    names = [record["name"] for record in generated if record["column"] == "base"]
    rows = pd.DataFrame(generated).groupby("column", sort=False)["features"]
    columns = {column: np.stack(list(values)) for column, values in rows}
    columns["real"] = real_features(bench.library(0), bench.oracle, names)
    return {column: bench.real.distance(values, names) for column, values in columns.items()}
