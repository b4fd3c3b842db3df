"""Training of RealRAG's retriever from settings, for `pleinair train retriever`."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.app.engines import Watch, build_encoder, build_generator, check, sampling_capabilities
from pleinair.app.estimate.cost import Range, cost_of_images
from pleinair.app.libraries import fresh_index, open_library
from pleinair.app.paths import places
from pleinair.app.runs.request import check_out
from pleinair.app.settings import POCKET, Settings
from pleinair.tools.data_sets.training import UnreadLists, published, training_part
from pleinair.tools.realrag import Sampling, training_of
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, Encoder

if TYPE_CHECKING:
    from pleinair.tools.data_sets.data_set import DataSet
    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.retrieval.realrag.data import Sample, TrainingSet
    from pleinair.tools.retrieval.realrag.pairs import Pair
    from pleinair.tools.retrieval.realrag.reflective import ReflectiveOptions, TrainingConfig


def train_retriever(
    settings: Settings,
    out: Path,
    options: ReflectiveOptions,
    classes: str,
    watch: Watch,
    *,
    dry_run: bool = False,
) -> Iterator[str]:
    """Train RealRAG's retriever (ICML 2025) on the library for the generator; yield a line a stage and epoch.

    Samples are cached in the home folder, for all trainings.

    Args:
        settings: with the library, the frozen encoder, and the generator with the options of its images.
        out: folder of the training; a stopped one continues.
        options: of the training.
        classes: captions, folders, pocket, or a file of names; "" detects them from the library.
        watch: shows the progress of a stage.
        dry_run: yield the estimate only.

    Raises:
        BadInput: classes with too few pairs or without names, an encoder that is trained already, or a folder
            that is not writable or has another training.
    """
    from pleinair.tools.retrieval.realrag.pairs import require_classes
    from pleinair.tools.retrieval.realrag.reflective import TrainingConfig, require_same, save_config

    check(settings)
    check_out(out)
    library = open_library(settings, places(settings.paths.home))
    if not classes and settings.library.folder == POCKET:
        classes = "pocket"
    library, pairs = find_pairs(library, classes)
    require_classes(pairs)
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs))
    is_reflective = options.loss == "reflective"
    if is_reflective:
        yield from _estimate(settings, len(prompts) * options.samples)
    if dry_run:
        return
    encoder, capabilities = _frozen_encoder(settings), sampling_capabilities(settings)
    sampling = Sampling.of(capabilities, settings.image.negative_prompt or "") if is_reflective else None
    require_same(out, choices=options, encoder=encoder.id, sampling=sampling)
    training_set, samples = yield from _make_training_set(
        settings, library, pairs, prompts, encoder, sampling, options, watch
    )
    config = TrainingConfig(
        choices=options,
        generator=capabilities.id,
        sampling=sampling,
        encoder=encoder.id,
        engine=settings.encoder.backend,
        arguments=settings.encoder.arguments,
        dim=training_set.pool.shape[1],
        lesson=training_set.digest,
    )
    save_config(out, config)
    _describe(training_set, library, samples, config.generator, out)
    yield from _run_epochs(training_set, config, out, getattr(encoder, "device", "cpu"))


def _describe(
    training_set: TrainingSet, library: Library, samples: Sequence[Sample], generator: str, out: Path
) -> None:
    """Write what the training is on: a line a sample, and a line a pair."""
    from pleinair.tools.retrieval.realrag.data import describe_pairs

    _write_lines(out / "samples.jsonl", ({**sample.facts(), "generator": generator} for sample in samples))
    _write_lines(out / "pairs.jsonl", describe_pairs(training_set, library))


def _estimate(settings: Settings, samples: int) -> Iterator[str]:
    """Yield how many images the training generates, and their price."""
    images = Range(low=0, high=samples, note="without those of earlier trainings")
    yield images.line("images")
    yield cost_of_images(settings.generator, images, ()).line("US dollars")


def _make_training_set(
    settings: Settings,
    library: Library,
    pairs: Sequence[Pair],
    prompts: Sequence[str],
    encoder: Encoder,
    sampling: Sampling | None,
    options: ReflectiveOptions,
    watch: Watch,
) -> Generator[str, None, tuple[TrainingSet, list[Sample]]]:
    """Index the library, generate and embed the samples; yield a line a stage."""
    from pleinair.tools.retrieval.realrag import data

    home = places(settings.paths.home)
    with watch("Indexing images") as on_index:
        index = fresh_index(settings, home, library, encoder, on_index)
    images = len({pair.id for pair in pairs})
    yield f"{images} images with {len(prompts)} prompts, of {len(index)} in {library.title}"
    store = ArtifactStore(home.cache / "samples")
    samples: list[Sample] = []
    if sampling:
        generator = build_generator(settings)
        with watch("Generating samples") as on_sample:
            samples = data.generate_samples(
                prompts,
                generator=generator,
                sampling=sampling,
                store=store,
                each=options.samples,
                on_progress=on_sample,
            )
        yield f"{len(samples)} samples of {generator.capabilities.id}"
    with watch("Embedding samples") as on_embedded:
        training_set = data.build_training_set(
            pairs,
            samples,
            index=index,
            encoder=encoder,
            store=store,
            options=options,
            on_progress=on_embedded,
        )
    return training_set, samples


def _run_epochs(training_set: TrainingSet, config: TrainingConfig, out: Path, device: str) -> Iterator[str]:
    from pleinair.tools.retrieval.realrag.training import train

    for epoch, loss in train(training_set, config, out, device):
        yield f"epoch {epoch} of {config.choices.epochs}: loss {loss:.4f}"
    sampling = config.sampling
    whose = "any generator"
    if sampling:
        whose = (
            f"{config.generator} at {sampling.width} × {sampling.height} pixels, "
            f"{sampling.num_inference_steps} steps and guidance {sampling.guidance_scale:g}"
        )
    yield f"The retriever is in {out}, for {whose}; a profile uses it by"
    yield f'[encoder]\nbackend = "reflective"\nfolder = {json.dumps(str(out.absolute()))}'
    yield f'[realrag]\nmethod = "{config.choices.loss}"'


def _frozen_encoder(settings: Settings) -> Encoder:
    encoder = build_encoder(settings)
    if training_of(encoder):
        raise BadInput(
            f"encoder.backend = {settings.encoder.backend!r}: trained already; accepted: a frozen encoder"
        )
    return encoder


def find_pairs(library: Library, classes: str) -> tuple[Library, list[Pair]]:
    """Return the images of a library to train on, and their pairs.

    Of a published data set these are the images that it keeps for that, and the classes are those of its own
    list. `classes` is captions, folders, pocket, or a file of names; "" means the classes of a data set, else
    captions.
    """
    data_set = _data_set_of(library, classes)
    library = training_part(library, data_set)
    return library, _pairs_of(library, classes, data_set)


def _data_set_of(library: Library, classes: str) -> DataSet | None:
    """Return the published data set of a library; None where it cannot be read and is not needed."""
    from pleinair.tools.retrieval.realrag.pairs import USE_FILE

    try:
        return published(library)
    except UnreadLists as error:
        if classes in ("", "folders"):
            raise BadInput(error.message, f"{error.remedy} Or: {USE_FILE}; or --classes captions.") from error
        return None


def _pairs_of(library: Library, classes: str, data_set: DataSet | None) -> list[Pair]:
    from pleinair.tools.retrieval.realrag import pairs

    items = library.items.values()
    if classes == "pocket":
        from pleinair.tools.pocket.worlds import DEFAULT, language_of

        return pairs.pairs_by_name(items, list(language_of(DEFAULT).names))
    if classes not in ("", "captions", "folders"):
        names = _read_names(classes)
        if isinstance(names, dict):
            return pairs.pairs_by_folder(items, names)
        return pairs.pairs_by_name(items, names)
    if classes != "captions" and (from_table := pairs.pairs_by_table(library)):
        return from_table
    if data_set and (classes != "captions" or pairs.has_captions(data_set.examples)):
        captions = classes == "captions" or (not classes and not pairs.has_classes(data_set.examples))
        return pairs.pairs_of_data_set(data_set, captions)
    return pairs.pairs_by_folder(items) if classes == "folders" else pairs.pairs_by_caption(items)


def _read_names(file: str) -> list[str] | dict[str, str]:
    """Read names, one a line, or folders with their names, a tab between them."""
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        accepted = (
            "'captions', 'folders', 'pocket', or a file with a name a line, or with a folder, a tab and its "
            "name a line"
        )
        raise BadInput(f"classes = {file!r}: no readable file; accepted: {accepted}") from None
    names = [line.strip() for line in lines if line.strip()]
    if not any("\t" in name for name in names):
        return names
    if wrong := [name for name in names if "\t" not in name]:
        raise BadInput(
            f"classes = {file!r}: the line {wrong[0]!r} has no tab, others have.",
            "Write a folder, a tab and its name in every line.",
        )
    cells = (name.split("\t") for name in names)
    return {row[0].strip(): row[1].strip() for row in cells}


def _write_lines(path: Path, records: Iterable[object]) -> None:
    write_whole(path, "".join(json.dumps(record) + "\n" for record in records).encode())
