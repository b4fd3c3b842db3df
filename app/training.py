"""From settings to a trained retriever: what `pleinair train retriever` does (RealRAG, ICML 2025)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pleinair.app.engines import check, chosen_generator, engine, fresh_index, index_folder, library_folder
from pleinair.app.paths import places
from pleinair.app.settings import POCKET, Settings
from pleinair.tools.realrag import training_of
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, Encoder, Generator

if TYPE_CHECKING:
    from pleinair.tools.retrieval.crossmodal.adaptor_training import Course
    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.retrieval.realrag.data import Lesson, Pair
    from pleinair.tools.retrieval.realrag.reflective import Card, Choices


Watch = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]  # a title gives a progress bar


def train_retriever(
    settings: Settings, out: Path, choices: Choices, classes: str, watch: Watch
) -> Iterator[str]:
    """Train on the chosen library for the chosen generator; yield what was done, a line a stage and epoch.

    Samples are kept in the home folder's cache and drawn once for all trainings. Raise `BadInput` for classes
    that give too few pairs, an encoder that is trained already, or a folder with another training.
    """
    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.retrieval.realrag.data import draw_samples, make_lesson, records
    from pleinair.tools.retrieval.realrag.reflective import save_card

    check(settings)
    home = places(settings.paths.home)
    library = Library.open(library_folder(settings, home))
    pairs = find_pairs(library, classes or ("pocket" if settings.library.folder == POCKET else "captions"))
    encoder, generator = _frozen_encoder(settings), chosen_generator(settings)
    with watch("Looking at pictures") as on_index:
        index = fresh_index(library, encoder, index_folder(settings, home), on_index)
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs))
    yield f"{len(pairs)} pictures with {len(prompts)} prompts, of {len(index)} in {library.folder}"
    store, samples = ArtifactStore(home.cache / "samples"), []
    if choices.loss == "reflective":
        with watch("Drawing samples") as on_sample:
            samples = draw_samples(
                prompts, generator=generator, store=store, each=choices.samples, on_progress=on_sample
            )
        yield f"{len(samples)} samples of {generator.capabilities.id}"
    lesson = make_lesson(pairs, samples, index=index, encoder=encoder, store=store, choices=choices)
    card = _card_for(settings, choices, generator, encoder, lesson)
    save_card(out, card)
    drawn = [{**one.record(), "generator": card.generator} for one in samples]
    _write_lines(out / "samples.jsonl", drawn)
    _write_lines(out / "pairs.jsonl", records(lesson, library, index.ids))
    yield from _learn(out, card, lesson)


def _learn(out: Path, card: Card, lesson: Lesson) -> Iterator[str]:
    """Train, and say what to put into a profile."""
    from pleinair.tools.retrieval.realrag.training import train

    for epoch, loss in train(lesson, card, out):
        yield f"epoch {epoch} of {card.choices.epochs}: loss {loss:.4f}"
    yield f"The retriever is in {out}, for this generator only; a profile names it by"
    yield f'[encoder]\nbackend = "reflective"\nfolder = {json.dumps(str(out.absolute()))}'
    yield f'[realrag]\nmethod = "{card.choices.loss}"'


def _frozen_encoder(settings: Settings) -> Encoder:
    """Build the encoder to train on; raise `BadInput` when it is a trained one."""
    encoder = cast(Encoder, engine("encoder", settings.encoder))
    if training_of(encoder):
        raise BadInput(
            f"encoder.backend = {settings.encoder.backend!r}: trained already; wanted a frozen one"
        )
    return encoder


def find_pairs(library: Library, classes: str) -> list[Pair]:
    """Read the classes as the word says: captions, folders, the pocket's species, or a file of names."""
    from pleinair.tools.retrieval.realrag import data

    items = library.items.values()
    if classes == "captions":
        return data.pairs_by_caption(items)
    if classes == "folders":
        return data.pairs_by_folder(items)
    return data.pairs_by_name(items, _species() if classes == "pocket" else _names_in(classes))


def _species() -> list[str]:
    """List the miniature world's names."""
    from pleinair.tools.pocket.world import SPECIES

    return [one.name for one in SPECIES]


def _names_in(file: str) -> list[str]:
    """Read a file with a class name a line."""
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        wanted = "'captions', 'folders', 'pocket', or a file of names, one a line"
        raise BadInput(f"classes = {file!r}: no readable file; wanted {wanted}") from None
    return [line.strip() for line in lines if line.strip()]


def _card_for(
    settings: Settings, choices: Choices, generator: Generator, encoder: Encoder, lesson: Lesson
) -> Card:
    """Describe the training."""
    from pleinair.tools.retrieval.realrag.reflective import Card

    return Card(
        choices=choices,
        generator=generator.capabilities.id,
        encoder=encoder.id,
        engine=settings.encoder.backend,
        arguments=settings.encoder.arguments,
        dim=lesson.pool.shape[1],
        lesson=lesson.digest,
    )


def _write_lines(path: Path, lines: Iterable[object]) -> None:
    """Write JSON, a line each."""
    write_whole(path, "".join(json.dumps(one) + "\n" for one in lines).encode())


def train_adaptor(settings: Settings, out: Path, course: Course) -> Iterator[str]:
    """Train the dense adaptor on the chosen library's captions; yield what was done, a line an epoch.

    The chat model breaks each caption down once; `budget.mllm_calls` limits that, and what it answered is
    kept in `out`. Raise `BadInput` for an encoder without patch features or fewer than two usable pictures.
    """
    from pleinair.tools.retrieval.crossmodal.adaptor import require_tower
    from pleinair.tools.retrieval.crossmodal.adaptor_training import break_down, train
    from pleinair.tools.retrieval.library import Library

    check(settings)
    tower = require_tower(engine("encoder", settings.encoder))
    library = Library.open(library_folder(settings, places(settings.paths.home)))
    captions = {item.id: item.caption for item in library.items.values() if item.caption}
    model = engine("mllm", settings.mllm)
    found = list(break_down(captions, out, model, settings.budget.mllm_calls))
    examples = [one for one in found if one]
    left = len(found) - len(examples)
    yield f"{len(examples)} of {len(library.items)} pictures have sub-queries; {left} captions gave none"
    for number, loss in enumerate(
        train(examples, out, tower=tower, open=library.picture, course=course), start=1
    ):
        yield f"epoch {number} of {course.epochs}: loss {loss:.4f}"
    yield f"--set crossmodal.adaptor={out} uses it"
