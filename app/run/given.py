"""Pictures that a user gives with a prompt: read once, and kept so that a run never needs the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.app.places import Places
from pleinair.tools import registry
from pleinair.tools.types import BadInput, Picture

if TYPE_CHECKING:
    from PIL import Image

    from pleinair.tools.artifacts import ArtifactStore

FIELD = "pictures"  # of a graph's input
MOST = 16  # pictures; no generator takes more


def read_given(files: Sequence[str | Path], graph: str) -> list[Image.Image]:
    """Read the user's pictures, and write nothing.

    Raises:
        BadInput: a file is no usable picture, there are too many, or the graph takes none.
    """
    from pleinair.tools.decoding import read_untrusted
    from pleinair.tools.pictures import BadPicture

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


def keep_given(images: Sequence[Image.Image], places: Places) -> tuple[Picture, ...]:
    """Store pictures in the home and name them; raises `PleinairError` when the disk is full."""
    return tuple(_store(places).put(image) for image in images)


def require_given(pictures: Sequence[Picture], places: Places) -> tuple[Picture, ...]:
    """Give the pictures back if the home holds them; else raise `BadInput`."""
    from pleinair.tools.artifacts import BadArtifact

    for picture in pictures:
        try:
            _store(places).read(picture)
        except BadArtifact as fault:
            raise BadInput(
                f"picture {picture.sha256}: it was given with the prompt and is not here"
            ) from fault
    return tuple(pictures)


def adopt_given(pictures: Sequence[Picture], places: Places, store: ArtifactStore) -> None:
    """Copy the user's pictures into a run's own store; raises `BadArtifact` when one is gone."""
    for picture in pictures:
        store.adopt(picture, _store(places))


def _store(places: Places) -> ArtifactStore:
    from pleinair.tools.artifacts import ArtifactStore

    return ArtifactStore(places.given)
