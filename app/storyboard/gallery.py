"""Images of a storyboard: those of a run, and thumbnails of the library."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from PIL import Image

from pleinair.app.credits.sheet import Chosen
from pleinair.app.libraries import open_library
from pleinair.app.paths import Paths
from pleinair.app.runs.request import DrawRequest
from pleinair.app.runs.results import chosen_by
from pleinair.tools.images.crops import cut
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Box, Hit, Picture, PleinairError

if TYPE_CHECKING:
    from pleinair.tools.retrieval.library import Library

LARGEST = 640  # pixels a side
THUMB = 320  # pixels a side, for an enlarged one too
SMALL = 160  # pixels a side; up to this size images are enlarged without smoothing


@dataclass(frozen=True)
class ShownImage:
    """Image scaled down for a storyboard."""

    image: Image.Image

    @property
    def small(self) -> bool:
        """Return whether the image is to be enlarged without smoothing."""
        return max(self.image.size) <= SMALL

    @property
    def png(self) -> bytes:
        """Return the image as PNG."""
        file = io.BytesIO()
        self.image.save(file, "png")
        return file.getvalue()

    @property
    def uri(self) -> str:
        """Return a data URI: PNG of small images, JPEG of larger ones."""
        file = io.BytesIO()
        kind = "png" if self.small else "jpeg"
        self.image.save(file, kind)
        return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


class Gallery:
    """Images of a run and its library; None for those that are missing."""

    def __init__(self, run_id: str, request: DrawRequest, paths: Paths) -> None:
        self._request, self._paths = request, paths
        self._store = ArtifactStore(paths.pictures(run_id))
        self.pocket = "pocket" in request.settings.generator.model_dump_json()
        self.leak = request.settings.leak  # thresholds

    @cached_property
    def chosen(self) -> Chosen:
        """What the user has chosen as references."""
        return chosen_by(self._request)

    def stored(self, picture: Picture, crop: Box | None = None) -> ShownImage | None:
        """Return an image of the run, or a crop of it."""
        try:
            return _fitted(cut(self._store.open(picture), crop), LARGEST)
        except PleinairError:
            return None

    def thumbnail(self, hit: Hit) -> ShownImage | None:
        """Return a thumbnail of a library image."""
        try:
            return _fitted(self._library.picture(hit.id), THUMB) if self._library else None
        except PleinairError:
            return None

    @cached_property
    def _library(self) -> Library | None:
        try:
            return open_library(self._request.settings, self._paths)
        except PleinairError:
            return None


def _fitted(image: Image.Image, size: int) -> ShownImage:
    """Shrink an image to at most `size` pixels a side; never enlarge it."""
    copy = image.convert("RGB")
    copy.thumbnail((size, size))
    return ShownImage(copy)
