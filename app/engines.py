"""From settings to engines: found by name, imported when asked for, built when first used."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from pleinair.agent.context import Context
from pleinair.app.paths import Paths
from pleinair.app.settings import POCKET, BackendChoice, Settings
from pleinair.tools.arguments import checked, declare
from pleinair.tools.callbacks import no_callback
from pleinair.tools.generate import check_options
from pleinair.tools.locks import Once
from pleinair.tools.model_files.folders import locate
from pleinair.tools.realrag import Training, declared_training, require_generator, search_away, training_of
from pleinair.tools.registry import Kind
from pleinair.tools.retrieval.compose import Corpus, check_method, compose, threshold_of
from pleinair.tools.retrieval.crossmodal.captions import CaptionBook
from pleinair.tools.retrieval.crossmodal.dense import IndexScorer, LazyScorer
from pleinair.tools.retrieve import search
from pleinair.tools.types import BadInput, Encoder, Generator, Hit, ImageOptions, Retriever, Scorer
from pleinair.tools.worker.worker import DeviceLock, Worker

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.retrieval.index import Index, IndexRetriever
    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.storage.artifacts import ArtifactStore

OnProgress = Callable[[int, int], None]  # pictures indexed, pictures in all

PAUSE = 0.2  # seconds between two looks whether somebody else has built an index
DEVICE = DeviceLock()  # of the worker that draws: two of them would hold two models on one GPU
KEEPING = Lock()  # a cache that misses twice at once would keep two engines for one table


def build(
    settings: Settings,
    places: Paths,
    store: ArtifactStore,
    on_step: OnProgress = no_callback,
    on_index: OnProgress = no_callback,
) -> Context:
    """Make the context of a run; the library is opened, and indexed if need be, at the first look-up."""
    return Context(
        model=engine("mllm", settings.mllm),
        generator=chosen_generator(settings),
        retriever=LibraryRetriever(settings, places, on_index),
        store=store,
        k=settings.retrieval.k,
        threshold=threshold_of(settings.retrieval),
        image=settings.image,
        crops=settings.crops,
        leak=settings.leak,
        imagerag=settings.imagerag,
        realrag=settings.realrag,
        crossmodal=settings.crossmodal,
        scorer=LazyScorer(lambda: _open_scorer(settings, places, on_index)),
        captions=CaptionBook(places.cache / "captions"),
        on_step=on_step,
    )


def check(settings: Settings) -> None:
    """Refuse backends, arguments and a library that cannot be used; builds nothing and writes nothing."""
    for kind, choice in engine_choices(settings).items():
        declared = declare(kind, choice.backend, choice.arguments)
        if kind == "generator" and settings.image != ImageOptions():
            check_options(settings.image, declared or chosen_generator(settings).capabilities)
    _check_retrieval(settings)
    if settings.crossmodal.adaptor:
        locate(settings.crossmodal.adaptor)
    folder = settings.library.folder
    if folder != POCKET and not Path(folder).expanduser().is_dir():
        raise BadInput(
            f"library.folder = {folder!r}: no such folder; wanted a folder of pictures, or 'pocket'"
        )


def _check_retrieval(settings: Settings) -> None:
    knobs, threshold = settings.retrieval, settings.imagerag.threshold
    check_method(knobs)
    if knobs.second:
        declare("encoder", knobs.second.backend, knobs.second.arguments, "retrieval.second")
    elif knobs.method == "both":
        raise BadInput("retrieval.method = 'both': wanted another encoder too, in the table retrieval.second")
    if threshold is not None and knobs.method != "dense":
        raise BadInput(
            f"imagerag.threshold = {threshold}: a cosine, and the scores of retrieval.method = "
            f"{knobs.method!r} are none; wanted 'dense'"
        )


def engine_choices(settings: Settings) -> dict[Kind, BackendChoice]:
    """Return the backend of each kind."""
    return {"generator": settings.generator, "encoder": settings.encoder, "mllm": settings.mllm}


def engine(kind: Kind, choice: BackendChoice) -> Any:
    """Build a backend, or return the one that was built for the same table before, by any thread."""
    with KEEPING:
        built = _built(kind, choice.backend, json.dumps(choice.arguments, sort_keys=True))
    return built()


@lru_cache(maxsize=12)
def _built(kind: Kind, name: str, arguments: str) -> Once[Any]:
    parsed = json.loads(arguments)
    return Once(lambda: checked(kind, name, parsed)(**parsed))


def chosen_generator(settings: Settings) -> Generator:
    """Build the generator, or the worker that has it in its own process; one table, one generator."""
    choice = settings.generator
    if not settings.worker.process:
        return cast(Generator, engine("generator", choice))
    checked("generator", choice.backend, choice.arguments)
    with KEEPING:
        return _worker(choice.backend, json.dumps(choice.arguments, sort_keys=True), settings.worker.grace)


@lru_cache(maxsize=4)
def _worker(name: str, arguments: str, grace: float) -> Generator:
    return Worker(name, json.loads(arguments), grace, DEVICE)


def encoder_training(choice: BackendChoice) -> Training | None:
    """Return the training of an encoder, None for an untrained one; built-in ones are not loaded."""
    return declared_training(choice.backend, choice.arguments, lambda: engine("encoder", choice))


class LibraryRetriever:
    """Search the chosen library; the first search opens it and brings its index up to date."""

    def __init__(self, settings: Settings, places: Paths, on_index: OnProgress = no_callback) -> None:
        self._settings = settings
        # one retrieve a concept runs at once, and only one of them may build the index
        self._open = Once(lambda: open_retriever(settings, places, on_index))

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, best first."""
        return search(self._open(), query, k, seed)

    def open(self, id: str) -> Image:
        """Open a picture of the library by its id."""
        return self._open().open(id)

    def entries(self) -> Sequence[Hit]:
        """List every usable picture of the library, with score 0."""
        return self._open().entries()

    def search_away(self, query: str, away: Image, weight: float, k: int) -> list[Hit]:
        """Find up to `k` pictures near a text and far from a picture; raise `BadInput` where nothing can."""
        return search_away(self._open(), query, away, weight=weight, k=k)

    @property
    def training(self) -> Training | None:
        """Return what the encoder was trained with."""
        return encoder_training(self._settings.encoder)


def open_retriever(settings: Settings, places: Paths, on_index: OnProgress = no_callback) -> Retriever:
    """Build the retriever that the settings describe; a method that uses no vectors loads no encoder."""
    from pleinair.tools.retrieval.library import Library

    def dense(choice: BackendChoice) -> IndexRetriever:
        return _dense_retriever(settings.model_copy(update={"encoder": choice}), places, on_index)

    second = settings.retrieval.second
    corpus = Corpus(
        settings.retrieval,
        lambda: Library.open(library_folder(settings, places)),
        lambda: dense(settings.encoder),
        (lambda: dense(second)) if second else None,
    )
    return compose(settings.retrieval, corpus)


def _dense_retriever(settings: Settings, places: Paths, on_index: OnProgress = no_callback) -> IndexRetriever:
    """Open the library with an index that fits its pictures and the encoder."""
    from pleinair.tools.retrieval.index import IndexRetriever
    from pleinair.tools.retrieval.library import Library

    library = Library.open(library_folder(settings, places))
    encoder = cast(Encoder, engine("encoder", settings.encoder))
    if training := training_of(encoder):
        require_generator(training, chosen_generator(settings).capabilities.id)
    index = fresh_index(library, encoder, index_folder(settings, places), on_index)
    return IndexRetriever(library, index, encoder)


def _open_scorer(settings: Settings, places: Paths, on_index: OnProgress = no_callback) -> Scorer:
    """Open the adaptor that the settings name, or without one the encoder's own cosines."""
    encoder = engine("encoder", settings.encoder)
    if not settings.crossmodal.adaptor:
        return IndexScorer(_dense_retriever(settings, places, on_index).vector, encoder)
    from pleinair.tools.retrieval.crossmodal.adaptor import open_scorer as open_adaptor
    from pleinair.tools.retrieval.library import Library

    library = Library.open(library_folder(settings, places))
    return open_adaptor(settings.crossmodal.adaptor, encoder, library.picture)


def fresh_index(
    library: Library, encoder: Encoder, folder: Path, on_index: OnProgress = no_callback
) -> Index:
    """Open an index, or bring it up to date where it is missing, damaged or older than the library.

    Another run that is at it already is waited for; `on_index` then hears 0 and may raise to stop.
    """
    from pleinair.tools.retrieval.index import BeingBuilt, Index, build_index

    while True:
        with suppress(BadInput):
            index = Index.open(folder, encoder)
            if not index.is_stale(library):
                return index
        with suppress(BeingBuilt):
            return build_index(library, encoder, folder, on_index)
        on_index(0, len(library.items))
        time.sleep(PAUSE)


def library_folder(settings: Settings, places: Paths) -> Path:
    """Find the library; the miniature one is written to the cache on first use."""
    if settings.library.folder != POCKET:
        return Path(settings.library.absolute().folder)
    from pleinair.tools.pocket.library import cached_library

    return cached_library(places.cache)


def index_folder(settings: Settings, places: Paths) -> Path:
    """Return the folder of a library's index under an encoder; never inside the user's own folder."""
    choice = settings.encoder.model_dump_json()
    folder = settings.library.absolute().folder
    name = hashlib.sha256(f"{folder}\n{choice}".encode()).hexdigest()[:16]
    return places.cache / "indexes" / name
