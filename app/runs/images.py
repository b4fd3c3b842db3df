"""Images of the home by their SHA-256, whichever run has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pleinair.app.paths import Paths
from pleinair.tools.storage.artifacts import ArtifactStore, BadArtifact
from pleinair.tools.types import NotFound, Picture

_SHA256 = re.compile(r"[0-9a-f]{64}")


def stored_image(sha256: str, places: Paths) -> bytes:
    """Return the PNG of an input image, or of an image of any run; raises `NotFound`."""
    return image_file(sha256, places).read_bytes()


def image_file(sha256: str, places: Paths) -> Path:
    """Return the file of an input image, or of an image of any run, intact; raises `NotFound`."""
    if not is_sha256(sha256):
        raise NotFound(f"image {sha256[:80]!r}: must be a SHA-256, of 64 hexadecimal digits")
    for store in _stores(sha256, places):
        picture = Picture(sha256=sha256, width=1, height=1)
        with suppress(BadArtifact):  # deleted meanwhile, or changed
            store.read(picture)
            return Path(store.path(picture))
    raise NotFound(f"image {sha256}: no run has it, and it is no input image")


def is_sha256(text: str) -> bool:
    """Return whether a text can be the SHA-256 of an image."""
    return bool(_SHA256.fullmatch(text))


def _stores(sha256: str, places: Paths) -> Iterator[ArtifactStore]:
    """Yield the stores that have a file of this name, the newest run first."""
    file = Path("sha256") / sha256[:2] / f"{sha256}.png"
    runs = sorted((places.home / "runs").glob("*"), reverse=True)
    for folder in (places.input_images, *(run / "pictures" for run in runs)):
        if (folder / file).is_file():
            yield ArtifactStore(folder)
