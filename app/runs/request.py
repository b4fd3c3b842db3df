"""What a run was asked for, checked before anything is written."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, ValidationError

from pleinair.agent.react.schemas import Pin
from pleinair.agent.state import MAX_SEED, check_prompt
from pleinair.app.engines import check, engine
from pleinair.app.paths import Paths
from pleinair.app.prices import require_prices
from pleinair.app.settings import POCKET, Settings, renamed
from pleinair.tools import registry
from pleinair.tools.realrag import declared_training, require_training
from pleinair.tools.storage.files import require_writable
from pleinair.tools.types import BadInput, Budget, Picture, PleinairError, Reference, Value

if TYPE_CHECKING:
    from PIL import Image

    from pleinair.tools.storage.artifacts import ArtifactStore


REALRAG = "realrag"  # the graph that may want a trained retriever


class Parent(Value):
    """Say where a run branched off another one, whose steps before that are its own too."""

    run: str
    step: str  # as `pleinair trace show` prints it, such as "critique:1"
    checkpoint: str
    request: dict[str, Any] = {}  # what changes in the request that `step` draws


class ChatThread(Value):
    """Say which run this one follows in a talk, and what the user wants to see used or not used."""

    after: str = ""
    vetoes: tuple[str, ...] = ()
    pins: tuple[Pin, ...] = ()
    given: tuple[Reference, ...] = ()  # pictures of the user's own, kept in the home


def _with_current_keys(tree: Any) -> Any:
    """Rename the keys of stored settings that changed their name since."""
    return renamed(tree)[0] if isinstance(tree, dict) else tree


class DrawRequest(Value):
    """Hold everything that a run depends on; with its seed and the same models it gives the same picture."""

    prompt: str
    graph: str
    seed: int | None  # None: drawn once, and kept in the run's row
    settings: Annotated[Settings, BeforeValidator(_with_current_keys)]
    out: str  # absolute folder
    strip_metadata: bool = False
    parent: Parent | None = None
    pictures: tuple[Picture, ...] = ()  # the user's own, kept in the home
    thread: ChatThread | None = None  # for a graph that goes on talking

    @property
    def slug(self) -> str:
        """Give the prompt as a piece of a file name, at most 40 characters."""
        words = re.sub(r"[^a-z0-9]+", "-", self.prompt.lower()).strip("-")
        return words[:40].strip("-") or "picture"


def new_order(
    prompt: str, graph: str, seed: int | None, settings: Settings, out: str | None, strip_metadata: bool
) -> DrawRequest:
    """Check all that a user gives; raises `BadInput` with the value and what was wanted."""
    check_prompt(prompt)
    check_seed(seed)
    if graph not in (known := registry.names("graph")):
        raise BadInput(f"graph {graph!r}: unknown; wanted one of: {', '.join(known)}")
    check_budget(settings.budget)
    check(settings)
    if graph == REALRAG:
        require_training(settings.realrag, declared_training(settings.encoder, engine))
    require_prices(settings)
    _check_library(settings.library.folder)
    folder = Path(out or settings.paths.out).expanduser().absolute()
    _check_out(folder)
    return DrawRequest(
        prompt=prompt,
        graph=graph,
        seed=seed,
        settings=settings.model_copy(update={"library": settings.library.absolute()}),
        out=str(folder),
        strip_metadata=strip_metadata,
    )


def check_budget(budget: Budget) -> None:
    """Refuse a limit that allows no picture at all; none of questions, tokens or money allows a draft."""
    for name in ("attempts", "images", "seconds"):
        if getattr(budget, name) == 0:
            wanted = "more than 0" if name == "seconds" else "1 or more"
            raise BadInput(f"budget.{name} = 0: nothing would be drawn; wanted {wanted}")


def _check_library(folder: str) -> None:
    """Refuse a library without a picture, before anything is paid for."""
    from pleinair.tools.retrieval.library import WANTED, has_pictures

    if folder != POCKET and not has_pictures(Path(folder).expanduser()):
        raise BadInput(f"library.folder = {folder!r}: no pictures in it; wanted {WANTED}")


def _check_out(folder: Path) -> None:
    """Refuse a folder for results that cannot hold any, before anything is paid for."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"out {str(folder)!r}: it is a file; wanted a folder")
    try:
        require_writable(folder)
    except PleinairError as fault:
        raise BadInput(f"out {str(folder)!r}: {fault} Wanted a folder that can be written to") from fault


def read_order(text: str) -> DrawRequest:
    """Read the order of a stored run; one that this version cannot read is `BadInput`."""
    try:
        return DrawRequest.model_validate_json(text)
    except ValidationError as error:
        raise BadInput("this run was ordered by a pleinair whose settings this one cannot read") from error


def chosen_seed(order: DrawRequest) -> int:
    """Give the seed asked for, or draw one."""
    return secrets.randbelow(2**32) if order.seed is None else order.seed


def check_seed(seed: int | None) -> None:
    """Refuse a seed that no generator takes."""
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise BadInput(f"seed {seed}: wanted 0 to {MAX_SEED}")


FIELD = "pictures"  # of a graph's input
MOST = 16  # pictures; no generator takes more


def read_given(files: Sequence[str | Path], graph: str) -> list[Image.Image]:
    """Read the user's pictures, and write nothing.

    Raises:
        BadInput: a file is no usable picture, there are too many, or the graph takes none.
    """
    from pleinair.tools.images.reading import BadPicture
    from pleinair.tools.images.sandbox import read_untrusted

    if not files:
        return []
    if not takes_pictures(graph):
        able = ", ".join(name for name in registry.names("graph") if takes_pictures(name))
        raise BadInput(f"picture {str(files[0])!r}: graph {graph!r} takes none; wanted one of: {able}")
    if len(files) > MOST:
        raise BadInput(f"picture: {len(files)} are given; wanted at most {MOST}")
    images = []
    for file in files:
        try:
            images.append(read_untrusted(Path(file).expanduser()))
        except BadPicture as fault:
            raise BadInput(f"picture {str(file)!r}: {fault}") from fault
    return images


def takes_pictures(graph: str) -> bool:
    """Tell whether a graph's input has a field for the user's pictures."""
    return FIELD in registry.resolve("graph", graph).get_input_jsonschema().get("properties", {})


def keep_given(images: Sequence[Image.Image], places: Paths) -> tuple[Picture, ...]:
    """Store pictures in the home and name them; raises `PleinairError` when the disk is full."""
    return tuple(_store(places).put(image) for image in images)


def require_given(pictures: Sequence[Picture], places: Paths) -> tuple[Picture, ...]:
    """Give the pictures back if the home holds them; else raise `BadInput`."""
    from pleinair.tools.storage.artifacts import BadArtifact

    for picture in pictures:
        try:
            _store(places).read(picture)
        except BadArtifact as fault:
            raise BadInput(
                f"picture {picture.sha256}: it was given with the prompt and is not here"
            ) from fault
    return tuple(pictures)


def adopt_given(pictures: Sequence[Picture], places: Paths, store: ArtifactStore) -> None:
    """Copy the user's pictures into a run's own store; raises `BadArtifact` when one is gone."""
    for picture in pictures:
        store.adopt(picture, _store(places))


def _store(places: Paths) -> ArtifactStore:
    from pleinair.tools.storage.artifacts import ArtifactStore

    return ArtifactStore(places.given)
