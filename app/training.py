"""Training of RealRAG's retriever from settings, for `pleinair train retriever`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.app.engines import (
    Watch,
    build_encoder,
    build_generator,
    check,
    fresh_index,
    open_library,
)
from pleinair.app.paths import places
from pleinair.app.settings import POCKET, Settings
from pleinair.tools.realrag import training_of
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, Encoder

if TYPE_CHECKING:
    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.retrieval.realrag.data import Pair, TrainingSet
    from pleinair.tools.retrieval.realrag.reflective import ReflectiveOptions, TrainingConfig


def train_retriever(
    settings: Settings, out: Path, options: ReflectiveOptions, classes: str, watch: Watch
) -> Iterator[str]:
    """Train RealRAG's retriever (ICML 2025) on the library for the generator; yield a line a stage and epoch.

    Samples are cached in the home folder, for all trainings. Raise `BadInput` for classes with too few pairs,
    an encoder that is trained already, or a folder with another training.
    """
    from pleinair.tools.retrieval.realrag import data
    from pleinair.tools.retrieval.realrag.reflective import TrainingConfig, save_config

    check(settings)
    home = places(settings.paths.home)
    library = open_library(settings, home)
    pairs = find_pairs(library, classes or ("pocket" if settings.library.folder == POCKET else "captions"))
    encoder, generator = _frozen_encoder(settings), build_generator(settings)
    with watch("Indexing images") as on_index:
        index = fresh_index(settings, home, library, encoder, on_index)
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs))
    yield f"{len(pairs)} images with {len(prompts)} prompts, of {len(index)} in {library.title}"
    store, samples = ArtifactStore(home.cache / "samples"), []
    if options.loss == "reflective":
        with watch("Generating samples") as on_sample:
            samples = data.generate_samples(
                prompts, generator=generator, store=store, each=options.samples, on_progress=on_sample
            )
        yield f"{len(samples)} samples of {generator.capabilities.id}"
    training_set = data.build_training_set(
        pairs, samples, index=index, encoder=encoder, store=store, options=options
    )
    config = TrainingConfig(
        choices=options,
        generator=generator.capabilities.id,
        encoder=encoder.id,
        engine=settings.encoder.backend,
        arguments=settings.encoder.arguments,
        dim=training_set.pool.shape[1],
        lesson=training_set.digest,
    )
    save_config(out, config)
    facts = ({**sample.facts(), "generator": config.generator} for sample in samples)
    _write_lines(out / "samples.jsonl", facts)
    _write_lines(out / "pairs.jsonl", data.describe_pairs(training_set, library, index.ids))
    yield from _run_epochs(training_set, config, out)


def _run_epochs(training_set: TrainingSet, config: TrainingConfig, out: Path) -> Iterator[str]:
    from pleinair.tools.retrieval.realrag.training import train

    for epoch, loss in train(training_set, config, out):
        yield f"epoch {epoch} of {config.choices.epochs}: loss {loss:.4f}"
    yield f"The retriever is in {out}, for this generator only; a profile uses it by"
    yield f'[encoder]\nbackend = "reflective"\nfolder = {json.dumps(str(out.absolute()))}'
    yield f'[realrag]\nmethod = "{config.choices.loss}"'


def _frozen_encoder(settings: Settings) -> Encoder:
    encoder = build_encoder(settings)
    if training_of(encoder):
        raise BadInput(
            f"encoder.backend = {settings.encoder.backend!r}: trained already; accepted: a frozen encoder"
        )
    return encoder


def find_pairs(library: Library, classes: str) -> list[Pair]:
    """Return the pairs of a library; `classes` is captions, folders, pocket, or a file of names."""
    from pleinair.tools.retrieval.realrag import data

    items = library.items.values()
    if classes == "captions":
        return data.pairs_by_caption(items)
    if classes == "folders":
        return data.pairs_by_folder(items)
    if classes == "pocket":
        from pleinair.tools.pocket.world import SPECIES

        return data.pairs_by_name(items, [species.name for species in SPECIES])
    return data.pairs_by_name(items, _read_names(classes))


def _read_names(file: str) -> list[str]:
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        accepted = "'captions', 'folders', 'pocket', or a file of names, one a line"
        raise BadInput(f"classes = {file!r}: no readable file; accepted: {accepted}") from None
    return [line.strip() for line in lines if line.strip()]


def _write_lines(path: Path, records: Iterable[object]) -> None:
    write_whole(path, "".join(json.dumps(record) + "\n" for record in records).encode())
