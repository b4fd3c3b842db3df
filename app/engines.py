"""Backends, retrievers and indexes as the settings describe them; built when first used."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from pleinair.agent.context import Context
from pleinair.app.libraries import (
    OnProgress,
    fetch_published,
    is_replaced,
    library_of,
    open_index,
    open_library,
)
from pleinair.app.models.pins import HUB_GENERATORS
from pleinair.app.parts import NO_PARTS, PROGRAM, Parts, declared, has_own_retriever
from pleinair.app.paths import Paths
from pleinair.app.settings import POCKET, BackendChoice, Settings, load
from pleinair.tools import registry
from pleinair.tools.arguments import checked, declare
from pleinair.tools.callbacks import no_callback
from pleinair.tools.cluster.ray_serve import RayEncoder, RayGenerator, ReplicaOptions, app_name
from pleinair.tools.crossmodal import require_adaptor
from pleinair.tools.generate import check_options
from pleinair.tools.http.support import SUPPORT
from pleinair.tools.locks import Once
from pleinair.tools.model_files.folders import locate
from pleinair.tools.realrag import Training, declared_training, require_generator, search_away, training_of
from pleinair.tools.registry import Kind, did_you_mean, names
from pleinair.tools.retrieval.compose import (
    AUTO,
    BOTH,
    NAMED,
    PAPERS,
    Corpus,
    check_method,
    compose,
    filtered_by_license,
    threshold_of,
)
from pleinair.tools.retrieval.crossmodal.captions import CaptionBook
from pleinair.tools.retrieval.crossmodal.dense import IndexScorer, LazyScorer
from pleinair.tools.retrieve import empty_of, search, search_all, unlicensed_of
from pleinair.tools.types import (
    BadInput,
    Capabilities,
    Encoder,
    Generator,
    Hit,
    ImageOptions,
    NoLibrary,
    PleinairError,
    Retriever,
    Scorer,
)
from pleinair.tools.worker.devices import list_devices, lock_name
from pleinair.tools.worker.worker import DeviceLock, EncoderWorker, GeneratorWorker, started

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.retrieval.conditions import EmptySelection
    from pleinair.tools.retrieval.dense import IndexRetriever
    from pleinair.tools.retrieval.library import Library
    from pleinair.tools.storage.artifacts import ArtifactStore

Watch = Callable[[str], AbstractContextManager[OnProgress]]  # progress bar for a title

_DEVICE_LOCKS: defaultdict[str, DeviceLock] = defaultdict(DeviceLock)  # by name
_CACHE_LOCK = Lock()  # two concurrent misses would build two backends for one table


def build(
    settings: Settings,
    places: Paths,
    store: ArtifactStore,
    on_step: OnProgress = no_callback,
    on_index: OnProgress = no_callback,
    parts: Parts = NO_PARTS,
) -> Context:
    """Build the context of a run; the library is opened, and indexed if necessary, by the first retrieval.

    A program's `parts` take the place of backends.
    """
    SUPPORT.open(places.cache / "servers")
    is_library = parts.retriever is None
    return Context(
        model=parts.model or build_backend("mllm", settings.mllm),
        generator=parts.generator or build_generator(settings),
        retriever=_LibraryRetriever(settings, places, on_index)
        if parts.retriever is None
        else filtered_by_license(parts.retriever, settings.retrieval),
        paper_retriever=_paper_retriever(settings, places, on_index) if is_library else None,
        store=store,
        k=settings.retrieval.k,
        threshold=threshold_of(settings.retrieval),
        image=settings.image,
        budget=settings.budget,
        approve=settings.approve,
        trace_images=settings.tracing.images,
        crops=settings.crops,
        leak=settings.leak,
        imagerag=settings.imagerag,
        realrag=settings.realrag,
        crossmodal=settings.crossmodal,
        scorer=LazyScorer(lambda: _open_scorer(settings, places, on_index)) if is_library else None,
        captions=CaptionBook(places.cache / "captions"),
        on_step=on_step,
    )


def _paper_retriever(settings: Settings, places: Paths, on_index: OnProgress) -> Retriever | None:
    """Return the dense retriever of the papers' graphs where the user has not set a method."""
    if settings.retrieval.method != AUTO:
        return None
    papers = _as_papers(settings)
    flat = papers.retrieval.model_copy(update={"threshold": 0.0})  # the papers have none of the query's own
    return _LibraryRetriever(papers.model_copy(update={"retrieval": flat}), places, on_index)


def _as_papers(settings: Settings) -> Settings:
    """Return the settings with the papers' retrieval: by vectors, and no comparison of pixels."""
    return settings.model_copy(update={"retrieval": settings.retrieval.model_copy(update=PAPERS)})


def for_pocket(settings: Settings) -> Settings:
    """Return the settings for the pocket library, whose images differ little and whose captions name all."""
    method = NAMED if settings.retrieval.method == AUTO else settings.retrieval.method
    retrieval = settings.retrieval.model_copy(update={"method": method, "drop_near_copies": False})
    return settings.model_copy(update={"retrieval": retrieval})


def check(settings: Settings) -> None:
    """Raise `BadInput` for unusable backends, arguments or libraries; builds nothing and writes nothing."""
    from pleinair.tools.retrieval.roots.opening import WANTED, addresses_of

    _check_devices(settings)
    for kind, choice in backend_choices(settings).items():
        if kind == "generator" and settings.image != ImageOptions():
            check_options(settings.image, declared_capabilities(settings))
        else:
            declared(kind, choice)
    _check_retrieval(settings)
    if settings.crossmodal.adaptor:
        require_adaptor(locate(settings.crossmodal.adaptor, "crossmodal.adaptor"))
    for folder in settings.library.folders:
        try:
            addresses_of(folder)
        except NoLibrary:
            accepted = f"{WANTED}, or 'pocket'"
            raise BadInput(f"library.folder = {folder!r}: no such folder; accepted: {accepted}") from None
    for reader in settings.library.readers:
        if reader not in (readers := names("reader")):
            hint = did_you_mean(reader, readers)
            raise BadInput(f"library.readers = {reader!r}: unknown; accepted: {', '.join(readers)}.{hint}")


def _check_devices(settings: Settings) -> None:
    if devices_of(settings) and settings.ray_serve.generator:
        devices = settings.generator.arguments["devices"]
        raise BadInput(
            f"generator.devices = {devices!r}: not for a generator that Ray Serve holds",
            "Leave it out; ray_serve.generator.max_replicas is the number of images at a time.",
            field="generator.devices",
        )


def declared_capabilities(settings: Settings) -> Capabilities:
    """Return the generator's capabilities without loading it; one that declares none is built for them."""
    capabilities = declared("generator", settings.generator)
    return cast(Capabilities, capabilities) if capabilities else build_generator(settings).capabilities


def _check_retrieval(settings: Settings) -> None:
    options, threshold = settings.retrieval, settings.imagerag.threshold
    if not has_own_retriever(settings):
        check_method(options)
    if options.second:
        declare("encoder", options.second.backend, options.second.arguments, "retrieval.second")
    elif options.method == BOTH:
        raise BadInput("retrieval.method = 'both': needs a second encoder, in the table retrieval.second")
    if has_own_retriever(settings):
        for key, value in (("tags", options.tags), ("min_side", options.min_side)):
            if value:
                raise BadInput(
                    f"retrieval.{key} = {value!r}: not for the program's own retriever; leave it out"
                )
    if threshold is not None and options.method not in (AUTO, "dense"):
        raise BadInput(
            f"imagerag.threshold = {threshold}: a cosine, so it needs retrieval.method = 'dense' or 'auto', "
            f"not {options.method!r}"
        )


def backend_choices(settings: Settings) -> dict[Kind, BackendChoice]:
    """Return the backend of each kind."""
    return {"generator": settings.generator, "encoder": settings.encoder, "mllm": settings.mllm}


def import_libraries(settings: Settings, graph: str) -> None:
    """Import the libraries that a run uses in this process, which takes seconds at the first time.

    What cannot be imported is left to the run, which reports it.
    """
    with suppress(ImportError, PleinairError):
        registry.resolve("graph", graph)
        for kind, choice in backend_choices(settings).items():
            if choice.backend != PROGRAM:
                registry.resolve(kind, choice.backend)
        is_here = not (has_process(settings) or settings.ray_serve.generator)
        if settings.generator.backend in HUB_GENERATORS and is_here:
            getattr(import_module("diffusers"), str(settings.generator.arguments.get("pipeline")), None)
        is_here = not (settings.worker.encoder or settings.ray_serve.encoder)
        if settings.encoder.backend == "open_clip" and is_here:
            import_module("open_clip")
        import_module("faiss")


def build_backend(kind: Kind, choice: BackendChoice, grace: float | None = None) -> Any:
    """Return the backend of a table, built once for all threads.

    With `grace` a generator or an encoder is a worker: built in its own process, and a generator is stopped
    within so many seconds.
    """
    with _CACHE_LOCK:
        backend = _cached(kind, choice.backend, json.dumps(choice.arguments, sort_keys=True), grace)
    return backend()


@lru_cache(maxsize=64)  # a generator on eight devices is eight backends
def _cached(kind: Kind, name: str, arguments: str, grace: float | None) -> Once[Any]:
    def build() -> Any:
        parsed = json.loads(arguments)
        make = checked(kind, name, parsed)
        if grace is None:
            return make(**parsed)
        return (
            EncoderWorker(name, parsed)
            if kind == "encoder"
            else GeneratorWorker(name, parsed, grace, device_lock(str(parsed.get("device", ""))))
        )

    return Once(build)


def device_lock(device: str) -> DeviceLock:
    """Return the lock of a device, shared by all generators: two of them would load two models on one GPU."""
    return _DEVICE_LOCKS[lock_name(device)]


def on_device(settings: Settings, device: str) -> Settings:
    """Return the settings with the generator on one of its `devices`."""
    arguments = {**settings.generator.arguments, "device": device}
    choice = BackendChoice(**settings.generator.model_dump() | arguments)
    return settings.model_copy(update={"generator": choice})


def build_generator(settings: Settings) -> Generator:
    """Return the generator, that of Ray Serve, or the worker that runs it in its own process.

    Settings that name several devices get the worker of the first, unless `on_device` has chosen another.
    """
    if served := settings.ray_serve.generator:
        return cast(Generator, _served("generator", settings.generator, served))
    devices = devices_of(settings)
    if devices and settings.generator.arguments.get("device") not in devices:
        settings = on_device(settings, devices[0])
    grace = settings.worker.grace if has_process(settings) else None
    return cast(Generator, build_backend("generator", settings.generator, grace))


def has_process(settings: Settings) -> bool:
    """Return whether the generator runs in a process of its own, as on each of several devices."""
    return settings.worker.process or bool(settings.generator.arguments.get("devices"))


def devices_of(settings: Settings) -> tuple[str, ...]:
    """Return the devices that the generator may use at the same time, () unless several are configured."""
    return list_devices(str(settings.generator.arguments.get("devices", "")))


def sampling_capabilities(settings: Settings) -> Capabilities:
    """Return the generator's capabilities under its exact weights, with the values that `image` sets.

    Generators of this package load nothing for them, and none is built that a program hands over. Raise
    `NotDownloaded` for a branch of the hub that is not on this machine.
    """
    choice = settings.generator
    if choice.backend == PROGRAM:
        capabilities = declared_capabilities(settings)
    elif (make := checked("generator", choice.backend, choice.arguments)).__module__.startswith("pleinair."):
        capabilities = make(**choice.arguments).capabilities
    else:
        capabilities = build_generator(settings).capabilities
    return capabilities.with_options(settings.image)


def build_encoder(settings: Settings) -> Encoder:
    """Return the encoder, that of Ray Serve, or the worker that runs it in its own process."""
    if served := settings.ray_serve.encoder:
        return cast(Encoder, _served("encoder", settings.encoder, served))
    grace = settings.worker.grace if settings.worker.encoder else None
    return cast(Encoder, build_backend("encoder", settings.encoder, grace))


def with_second(settings: Settings, second: BackendChoice) -> Settings:
    """Return the settings with the second encoder in place of the first, also in Ray Serve."""
    ray_serve = settings.ray_serve
    if served := ray_serve.encoder:
        other = served.model_copy(update={"app": f"{app_name('encoder', served)}-second"})
        ray_serve = ray_serve.model_copy(update={"encoder": other})
    return settings.model_copy(update={"encoder": second, "ray_serve": ray_serve})


def _served(kind: Kind, choice: BackendChoice, options: ReplicaOptions) -> RayGenerator | RayEncoder:
    """Return the part that Ray Serve holds on this machine's cluster; nothing is connected yet."""
    make = RayGenerator if kind == "generator" else RayEncoder
    address = load(untrusted="ignore").cluster.ray  # a run cannot choose it
    return _served_once(
        make, choice.backend, json.dumps(choice.arguments), address, app_name(make.kind, options)
    )


@lru_cache(maxsize=64)
def _served_once(
    make: type[RayGenerator | RayEncoder], backend: str, arguments: str, address: str, app: str
) -> RayGenerator | RayEncoder:
    checked(make.kind, backend, json.loads(arguments))
    return make(backend, json.loads(arguments), address, app)


def require_published(settings: Settings, places: Paths) -> None:
    """Raise `BadInput` for a shared library that is not published under each encoder; fetch what is.

    Raise `DatabaseAway` if that cannot be found out.
    """
    second = settings.retrieval.second
    for each in (settings, with_second(settings, second)) if second else (settings,):
        fetch_published(each, places)


def encoder_training(settings: Settings) -> Training | None:
    """Return the training of the encoder, None for an untrained one; built-in encoders are not loaded."""
    choice = settings.encoder
    return declared_training(choice.backend, choice.arguments, lambda: build_encoder(settings))


class _LibraryRetriever:
    """Retriever over the library of the settings; its first use opens the library and updates the index."""

    def __init__(self, settings: Settings, places: Paths, on_index: OnProgress) -> None:
        self._settings = settings
        # the retrievals of several concepts run concurrently, and only one of them may build the index
        self._open = Once(lambda: open_retriever(settings, places, on_index))

    def search(self, query: str, k: int, seed: int = 0) -> list[Hit]:
        """Search for up to `k` images, best first."""
        return search(self._open(), query, k, seed)

    def search_many(self, queries: Sequence[str], k: int, seed: int = 0) -> list[list[Hit]]:
        """Search for each of several texts."""
        return search_all(self._open(), queries, k, seed)

    def open(self, id: str) -> Image:
        """Open an image of the library by its id."""
        return self._open().open(id)

    def entries(self) -> Sequence[Hit]:
        """List every usable image of the library, with score 0."""
        return self._open().entries()

    def search_away(self, query: str, away: Image, weight: float, k: int) -> list[Hit]:
        """Search for images near a text and far from `away`; raise `BadInput` if the method cannot."""
        return search_away(self._open(), query, away, weight=weight, k=k)

    @property
    def unlicensed(self) -> Retriever | None:
        """Return the retriever of images of all licenses, None where all are accepted."""
        return unlicensed_of(self._open()) if self._settings.retrieval.licenses else None

    @property
    def empty(self) -> EmptySelection | None:
        """Return what keeps every image from being retrieved, None if an image meets the conditions."""
        return empty_of(self._open())

    @property
    def training(self) -> Training | None:
        """Return the training of the encoder."""
        return encoder_training(self._settings)


def open_retriever(settings: Settings, places: Paths, on_index: OnProgress = no_callback) -> Retriever:
    """Build the retriever of the settings; the encoder is loaded only if the method uses vectors."""
    corpus = open_corpus(settings, places, on_index)
    return compose(corpus.options, corpus)


def open_corpus(
    settings: Settings,
    places: Paths,
    on_index: OnProgress = no_callback,
    library: Callable[[], Library] | None = None,
) -> Corpus:
    """Return what the retriever of the settings searches, opened when first used.

    The pocket library is searched by vectors unless a method is set: the pocket encoder knows its names, and
    its captions tell which they are.
    `library` opens the library in place of reading its folders.
    """
    if settings.library.folder == POCKET:
        settings = for_pocket(settings)
    from pleinair.tools.retrieval.calibrate import open_threshold

    opened = library or (lambda: open_library(settings, places, on_index))
    second = settings.retrieval.second
    return Corpus(
        settings.retrieval,
        opened,
        lambda: _dense_retriever(settings, places, on_index, opened),
        (lambda: _dense_retriever(with_second(settings, second), places, on_index, opened))
        if second
        else None,
        lambda dense: open_threshold(cast("IndexRetriever", dense)),
    )


def _dense_retriever(
    settings: Settings, places: Paths, on_index: OnProgress, opened: Callable[[], Library] | None = None
) -> IndexRetriever:
    """Open the library, with an index of its images under the encoder."""
    from pleinair.tools.retrieval.dense import IndexRetriever

    library = opened() if opened else open_library(settings, places, on_index)
    encoder = started(build_encoder(settings), on_index)
    if (training := training_of(encoder)) and not training.is_free:
        require_generator(training, sampling_capabilities(settings), settings.image.negative_prompt or "")
    index = open_index(settings, places, library, encoder, on_index)
    if is_replaced(library, index):
        library = library_of(index.catalogue, settings, places)
    index.gpu_memory = settings.retrieval.gpu_memory
    return IndexRetriever(library, index, encoder, places.cache / "texts.sqlite")


def _open_scorer(settings: Settings, places: Paths, on_index: OnProgress) -> Scorer:
    """Open the adaptor of the settings, or without one a scorer by the encoder's cosines."""
    encoder = started(build_encoder(settings), on_index)
    if not settings.crossmodal.adaptor:
        return IndexScorer(_dense_retriever(settings, places, on_index).vector, encoder)
    from pleinair.tools.retrieval.crossmodal.adaptor import open_scorer as open_adaptor

    library = open_library(settings, places)

    def stamp(id: str) -> str:
        return f"{library.location(id)}\n{library.items[id].stamp}"

    cache = places.cache / "adaptor-tokens.sqlite"
    return open_adaptor(settings.crossmodal.adaptor, encoder, library.picture, cache, stamp)
