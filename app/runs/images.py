"""Images of the home by their SHA-256, whichever run has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from pleinair.app.paths import Paths
from pleinair.tools.storage.artifacts import ArtifactStore, BadArtifact
from pleinair.tools.storage.folder import AT_ONCE
from pleinair.tools.types import NotFound, Picture

_TOGETHER = 64  # runs that are asked before the next ones
_SHA256 = re.compile(r"[0-9a-f]{64}")


def stored_image(sha256: str, places: Paths) -> bytes:
    """Return the PNG of an input image, or of an image of any run; raises `NotFound`."""
    if not is_sha256(sha256):
        raise NotFound(f"image {sha256[:80]!r}: must be a SHA-256, of 64 hexadecimal digits")
    picture = Picture(sha256=sha256, width=1, height=1)
    for store in _stores(picture, places):
        with suppress(BadArtifact):  # deleted meanwhile, or changed
            return store.read(picture)
    raise NotFound(f"image {sha256}: no run has it, and it is no input image")


def is_sha256(text: str) -> bool:
    """Return whether a text can be the SHA-256 of an image."""
    return bool(_SHA256.fullmatch(text))


def _stores(picture: Picture, places: Paths) -> Iterator[ArtifactStore]:
    """Yield the stores that have an image, that of input images first, then the newest run's."""
    inputs = ArtifactStore(places.input_images)
    if inputs.has(picture):
        yield inputs
    runs = sorted(places.all_files.folders(), reverse=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, len(runs), _TOGETHER):
            stores = [ArtifactStore(places.pictures(run)) for run in runs[start : start + _TOGETHER]]
            has_image = pool.map(lambda store: store.has(picture), stores)
            yield from (store for store, has in zip(stores, has_image, strict=True) if has)
