"""Request for a run: one frozen value, validated once, before anything is written."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from pleinair.agent.react.schemas import Pin
from pleinair.agent.state import MAX_SEED, check_prompt
from pleinair.app.cluster import ClusterOptions
from pleinair.app.engines import (
    check,
    declared_capabilities,
    encoder_training,
    require_published,
    sampling_capabilities,
)
from pleinair.app.libraries import index_exists, index_folder, open_library, require_library
from pleinair.app.parts import declared, has_own_retriever
from pleinair.app.paths import Paths
from pleinair.app.runs.edits import has_input, require_edits, require_image_file
from pleinair.app.runs.notes import Note
from pleinair.app.runs.prices import require_prices
from pleinair.app.settings import POCKET, BackendChoice, Settings, home_of, renamed
from pleinair.tools import registry
from pleinair.tools.arguments import complaint
from pleinair.tools.model_files.hub import NotDownloaded
from pleinair.tools.pocket.worlds import with_world
from pleinair.tools.prompt_options import PromptOption
from pleinair.tools.realrag import (
    Training,
    require_generator,
    require_references,
    require_training,
    require_values,
)
from pleinair.tools.retrieval.compose import AUTO, BOTH, LEXICAL, threshold_of
from pleinair.tools.storage.files import checked_path, require_writable
from pleinair.tools.types import BadInput, Budget, Hit, Picture, PleinairError, Reference, Value

if TYPE_CHECKING:
    from PIL import Image

    from pleinair.tools.storage.artifacts import ArtifactStore

MAX_IMAGES = 64  # of one request
MAX_INPUT_IMAGES = 16  # no generator takes more
DIRECT = "direct"  # the graph without retrieval
REALRAG = "realrag"  # the graph that may require a trained retriever
CROSSMODAL = "crossmodal"  # the graph that ranks by vectors whatever the method of retrieval
IMAGERAG = "imagerag"  # with those two, the papers' graphs, which have a flat threshold of their own
INPUT_FIELD = "pictures"  # of a graph's input
INPUT_IMAGES = "input_images"  # arguments of `draw`
OUT = "out"
_CAPTIONED: set[str] = set()  # folders of the indexes of libraries with captions enough


class Parent(Value):
    """Run and step at which a fork branched off; the fork shares the steps before it."""

    run: str
    step: str  # as `pleinair trace show` prints it, such as "critique:1"
    checkpoint: str
    request: dict[str, Any] = {}  # changes of the request to the generator at `step`
    given: tuple[Reference, ...] = ()  # what a driving model is to show concepts by, from `step` on


class ChatThread(Value):
    """State of a chat that its next request takes over."""

    after: str = ""  # the run before
    vetoes: tuple[str, ...] = ()
    pins: tuple[Pin, ...] = ()
    given: tuple[Reference, ...] = ()  # input images, stored in the home
    # runs of other graphs since then, the oldest first
    between: tuple[str, ...] = Field(default=(), exclude_if=lambda runs: not runs)


def _with_current_keys(tree: Any) -> Any:
    return with_world(renamed(tree)[0]) if isinstance(tree, dict) else tree


class DrawRequest(Value):
    """Everything that a run depends on; its seed and the same models reproduce the image."""

    prompt: str
    graph: str
    seed: int | None  # None: random, and stored in the run's row
    settings: Annotated[Settings, BeforeValidator(_with_current_keys)]
    out: str  # absolute folder
    strip_metadata: bool = False
    parent: Parent | None = None
    pictures: tuple[Picture, ...] = ()  # input images, stored in the home
    # image of which a part changes, stored there as RGBA: its alpha is 0 where it does
    base: Picture | None = Field(default=None, exclude_if=lambda base: base is None)
    thread: ChatThread | None = None  # for the graph of chats
    num_images: int = Field(default=1, ge=1, le=MAX_IMAGES, exclude_if=lambda count: count == 1)
    number: int = Field(default=1, ge=1, exclude_if=lambda number: number == 1)  # of this image, from 1
    # what the prompt was typed with beside its text, and what is worth telling before it is drawn
    prompt_options: tuple[PromptOption, ...] = Field(default=(), exclude_if=lambda options: not options)
    notes: tuple[Note, ...] = Field(default=(), exclude_if=lambda notes: not notes)
    name: str = Field(default="", exclude_if=lambda name: not name)  # in those of its files
    idempotency_key: str | None = Field(default=None, exclude=True)

    @property
    def input_images(self) -> tuple[Picture, ...]:
        """The images of the home that the run needs."""
        return (*self.pictures, self.base) if self.base else self.pictures

    @property
    def slug(self) -> str:
        """The name, or else the prompt, as a part of a file name: at most 40 characters."""
        if name := re.sub(r"[^\w.]+", "-", self.name)[:40].strip("-."):
            return f"{name}-{self.number}" if self.num_images > 1 else name
        words = re.sub(r"[^a-z0-9]+", "-", self.prompt.lower()).strip("-")
        return words[:40].strip("-") or "picture"

    def rows(self) -> list[tuple[str, int]]:
        """Return the JSON and the seed of each run: one per image, with consecutive seeds."""
        first = secrets.randbelow(2**32) if self.seed is None else self.seed
        updates = [
            {"number": number + 1, "seed": None if self.seed is None else self.seed + number}
            for number in range(self.num_images)
        ]
        texts = [self.model_copy(update=update).model_dump_json() for update in updates]
        return [(text, first + number) for number, text in enumerate(texts)]


def new_request(*, settings: Settings, out: str | Path | None = None, **fields: Any) -> DrawRequest:
    """Build and validate a request; writes nothing and loads no model.

    Args:
        settings: the settings of the run.
        out: the folder for the results; the settings' if None.
        fields: the other fields of `DrawRequest`.

    Raises:
        BadInput: a value is unusable; the message has it and what is accepted.
    """
    if not isinstance(out, str | Path | None):
        raise BadInput(f"out = {repr(out)[:80]}: must be the path of a folder", field=OUT)
    folder = checked_path(str(out or settings.paths.out), "out").absolute()
    own = {"library": settings.library.absolute(), "cluster": ClusterOptions()}  # which no run chooses
    absolute = settings.model_copy(update=own)
    try:
        request = DrawRequest(settings=absolute, out=str(folder), **fields)
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"]))
        raise BadInput(complaint(error), field=field) from error
    check_prompt(request.prompt)
    if request.seed is not None and not 0 <= request.seed <= MAX_SEED - request.num_images + 1:
        message = f"seed {request.seed}: must be 0 to {MAX_SEED - request.num_images + 1}"
        raise BadInput(message, field="seed")
    if request.graph not in (graphs := registry.names("graph")):
        hint = registry.did_you_mean(request.graph, graphs)
        message = f"graph {request.graph!r}: unknown; accepted: {', '.join(graphs)}.{hint}"
        raise BadInput(message, field="graph")
    check_settings(settings, request.graph)
    if request.base:
        _check_base(request, request.base)
    check_out(folder)
    return request


def _check_base(request: DrawRequest, base: Picture) -> None:
    require_edits(request.graph, request.settings)
    image = request.settings.image
    if (image.width, image.height) != (base.width, base.height):
        raise BadInput(
            f"image.width and height: {image.width} × {image.height}; must be those of the base image, "
            f"{base.width} × {base.height}"
        )


def check_settings(settings: Settings, graph: str) -> None:
    """Raise `BadInput` for settings that no run of a graph can use; loads no model, writes no run."""
    check_budget(settings.budget)
    check(settings)
    _check_trained_encoder(settings, graph)
    if graph == REALRAG:
        require_references(settings.realrag, declared_capabilities(settings).with_options(settings.image))
    require_prices(settings)
    _check_approval(settings, graph)
    _check_library(settings, graph)
    _check_conditions(settings, graph)
    _check_threshold(settings, graph)


def _check_trained_encoder(settings: Settings, graph: str) -> None:
    """Refuse a graph that needs another training, or an encoder trained for what another generator lacks."""
    if has_own_retriever(settings):
        return
    if graph == REALRAG:
        require_training(settings.realrag, encoder_training(settings))
    if _uses_encoder(settings, graph):
        _require_generator(settings, settings.encoder)
    if settings.retrieval.method == BOTH and settings.retrieval.second:
        _require_generator(settings, settings.retrieval.second)


def _require_generator(settings: Settings, encoder: BackendChoice) -> None:
    """Raise `BadInput` for an encoder that declares a training for another generator."""
    training = declared("encoder", encoder)
    if not isinstance(training, Training) or training.is_free:
        return
    negative = settings.image.negative_prompt or ""
    try:
        require_generator(training, sampling_capabilities(settings), negative)
    except NotDownloaded:  # its commit is not known yet, and no run begins without it
        require_values(training, declared_capabilities(settings).with_options(settings.image), negative)


def _uses_encoder(settings: Settings, graph: str) -> bool:
    """Return whether a graph may search by the encoder's vectors."""
    by_vectors = settings.retrieval.method != LEXICAL
    if graph == CROSSMODAL:
        return settings.crossmodal.rag and (by_vectors or settings.crossmodal.dense)
    return graph == REALRAG or (graph != DIRECT and by_vectors)


def _check_approval(settings: Settings, graph: str) -> None:
    # a graph that a program has compiled under another name checks it by itself
    if settings.approve and graph in registry.names("graph") and not _asks_approval(graph):
        graphs = ", ".join(name for name in registry.names("graph") if _asks_approval(name))
        raise BadInput(f"approve = {settings.approve!r}: graph {graph!r} asks nobody; these do: {graphs}")


def _asks_approval(graph: str) -> bool:
    """Return whether a graph can ask a person before it generates."""
    from pleinair.agent.approval.nodes import ApprovedState

    schema = registry.resolve("graph", graph).builder.state_schema
    return isinstance(schema, type) and issubclass(schema, ApprovedState)


def check_budget(budget: Budget) -> None:
    """Raise `BadInput` for a limit that allows no image; a draft needs no MLLM calls, tokens or money."""
    for name in ("attempts", "images", "seconds"):
        if getattr(budget, name) == 0:
            accepted = "more than 0" if name == "seconds" else "1 or more"
            raise BadInput(f"budget.{name} = 0: no image could be generated; must be {accepted}")


def _check_library(settings: Settings, graph: str) -> None:
    from pleinair.tools.retrieval.roots.addresses import is_url
    from pleinair.tools.retrieval.roots.opening import WANTED, has_images

    if has_own_retriever(settings):
        return
    if graph != DIRECT:
        require_library(settings)
    library = settings.library
    home = home_of(settings)
    if home.vectors and graph != DIRECT:
        require_published(settings, home)
    if any(map(is_url, library.folders)) and index_exists(settings, home):
        return  # listing a URL costs more than a run may for a check
    if library.folders and not has_images(library.folders):
        raise BadInput(f"library.folder = {library.folder!r}: no images in it; accepted: {WANTED}")


def _check_conditions(settings: Settings, graph: str) -> None:
    """Refuse conditions on retrieval that no image of the library meets, by `EmptySelection`.

    Sizes are known once the library is indexed, and the images of a URL too.
    """
    from pleinair.tools.retrieval.conditions import explain_empty
    from pleinair.tools.retrieval.roots.addresses import is_url

    conditions, home = settings.retrieval.conditions, home_of(settings)
    retrieves = graph != DIRECT and (graph != CROSSMODAL or settings.crossmodal.rag)
    if not (conditions and retrieves) or has_own_retriever(settings):
        return
    if any(map(is_url, settings.library.folders)) and not index_exists(settings, home):
        return
    if empty := explain_empty(open_library(settings, home).as_catalogue(), conditions):
        raise empty


def _check_threshold(settings: Settings, graph: str) -> None:
    """Refuse a threshold that has to be calibrated by captions which the library does not have.

    A run would notice it after its draft. A library without an index is read for it, once a process.
    """
    if settings.retrieval.threshold != AUTO or not _uses_threshold(settings, graph):
        return
    from pleinair.tools.retrieval.calibrate import require_captions

    home = home_of(settings)
    key = str(index_folder(settings, home))
    if key not in _CAPTIONED:
        items = open_library(settings, home).items.values()
        require_captions(items, f"retrieval.threshold = {AUTO!r}: ")
        _CAPTIONED.add(key)


def _uses_threshold(settings: Settings, graph: str) -> bool:
    """Return whether a graph abstains by `retrieval.threshold` of a library that may lack captions."""
    by_papers = graph in (CROSSMODAL, IMAGERAG, REALRAG) and settings.retrieval.method == AUTO
    is_own = has_own_retriever(settings) or settings.library.folder == POCKET
    return graph != DIRECT and not by_papers and not is_own and threshold_of(settings.retrieval) is None


def check_out(folder: Path) -> None:
    """Raise `BadInput` for a folder in which no file can be written; nothing is left behind."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"out {str(folder)!r}: it is a file; must be a folder", field=OUT)
    try:
        require_writable(folder)
    except PleinairError as error:
        message = f"out {str(folder)!r}: {error.message}"
        raise BadInput(message, "Choose a folder that can be written to.", field=OUT) from error


def read_request(text: str) -> DrawRequest:
    """Parse the request of a stored run; raises `BadInput` if this version cannot read it."""
    try:
        return DrawRequest.model_validate_json(text)
    except ValidationError as error:
        raise BadInput("the run's settings were written by an incompatible version of pleinair") from error


def read_input_images(files: Sequence[str | Path | bytes], graph: str) -> list[Image.Image]:
    """Read input images; writes nothing.

    Raises:
        BadInput: a file is not a usable image, there are too many, or the graph accepts none.
    """
    if isinstance(files, (str, Path, bytes)) or not isinstance(files, Sequence):
        message = f"input_images: {type(files).__name__}; must be a list of files"
        raise BadInput(message, "Put a single file into a list.", field=INPUT_IMAGES)
    if not files:
        return []
    if not takes_input_images(graph):
        graphs = ", ".join(name for name in registry.names("graph") if takes_input_images(name))
        message = f"input image {_name(files[0], 1)!r}: graph {graph!r} takes none; these do: {graphs}"
        raise BadInput(message, field=INPUT_IMAGES)
    if len(files) > MAX_INPUT_IMAGES:
        message = f"input images: {len(files)}; must be at most {MAX_INPUT_IMAGES}"
        raise BadInput(message, field=INPUT_IMAGES)
    return [read_input_image(file, _name(file, number)) for number, file in enumerate(files, 1)]


def _name(file: str | Path | bytes, number: int) -> str:
    """Return how messages name a file: by its path, or by its number where there is none."""
    return f"number {number}" if isinstance(file, bytes) else str(file)


def require_slots(count: int, settings: Settings, *, beside_base: bool = False) -> None:
    """Raise `BadInput` for more input images than the generator takes references, `beside_base` or alone."""
    capabilities = declared_capabilities(settings)
    slots = capabilities.inpaint_slots if beside_base else capabilities.slots
    if count > slots:
        takes = f"takes {slots} references" if slots else "takes no references"
        takes += " beside a base image" * beside_base
        message = f"input images: {count}; generator `{capabilities.id}` {takes}"
        raise BadInput(message, field=INPUT_IMAGES)


def read_input_image(file: str | Path | bytes, name: str = "") -> Image.Image:
    """Read one input image, a file or a file's bytes, whose name is for the message only.

    Raises `BadInput` for what is not an image.
    """
    from pleinair.tools.images.reading import BadPicture
    from pleinair.tools.images.sandbox import read_untrusted

    require_image_file(file, "input image", INPUT_IMAGES)
    try:
        return read_untrusted(file if isinstance(file, bytes) else Path(file).expanduser())
    except BadPicture as error:
        raise BadInput(f"input image {name or str(file)!r}: {error}", field=INPUT_IMAGES) from error


def takes_input_images(graph: str) -> bool:
    """Return whether a graph's input has a field for input images."""
    return has_input(graph, INPUT_FIELD)


def store_input_images(images: Sequence[Image.Image], places: Paths) -> tuple[Picture, ...]:
    """Store images in the home; raises `PleinairError` if the disk is full."""
    return tuple(_store(places).put(image) for image in images)


def store_base(image: Image.Image, places: Paths) -> Picture:
    """Store a base image with its alpha in the home; raises `PleinairError` if the disk is full."""
    return _store(places).put(image, alpha=True)


def input_reference(concept: str, picture: Picture, name: str) -> Reference:
    """Return the reference of a stored input image for a concept; `name` is its file's, to be shown."""
    hit = Hit(id=picture.sha256, score=1.0, caption=name, source="input image")
    return Reference(concept=concept, hit=hit, picture=picture)


def require_input_images(pictures: Sequence[Picture], places: Paths) -> None:
    """Raise `BadInput` unless these images are stored in the home."""
    from pleinair.tools.storage.artifacts import BadArtifact

    for picture in pictures:
        try:
            _store(places).read(picture)
        except BadArtifact as error:
            raise BadInput(f"input image {picture.sha256}: it is not on this machine") from error


def _store(places: Paths) -> ArtifactStore:
    from pleinair.tools.storage.artifacts import ArtifactStore

    return ArtifactStore(places.input_images)
