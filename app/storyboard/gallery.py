"""The pictures that a storyboard shows: a run's own, and those of the library that it only looked at."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from PIL import Image

from pleinair.app.engines import library_folder
from pleinair.app.paths import Paths
from pleinair.app.runs.request import DrawRequest
from pleinair.tools.images.crops import cut
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Box, Hit, Picture, PleinairError

if TYPE_CHECKING:
    from pleinair.tools.retrieval.library import Library

LARGEST = 640  # pixels; a storyboard is for reading, the picture itself lies beside it
THUMB = 128  # pixels
SMALL = 160  # pixels; up to here every pixel is shown as a square


@dataclass(frozen=True)
class Shown:
    """Image ready to be shown."""

    image: Image.Image

    @property
    def small(self) -> bool:
        """Return whether it is enlarged by squares instead of smoothly."""
        return max(self.image.size) <= SMALL

    @property
    def uri(self) -> str:
        """Return a data URI: PNG of small images, JPEG of larger ones."""
        file = io.BytesIO()
        kind = "png" if self.small else "jpeg"
        self.image.save(file, kind)
        return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


class Gallery:
    """Open pictures by their names in a run; what is gone is None."""

    def __init__(self, run_id: str, order: DrawRequest, places: Paths) -> None:
        self._order, self._places = order, places
        self._store = ArtifactStore(places.run(run_id) / "pictures")
        self.pocket = "pocket" in order.settings.generator.model_dump_json()
        self.leak = order.settings.leak  # from where on what came across is too much

    def stored(self, picture: Picture, crop: Box | None = None) -> Shown | None:
        """Show a picture of the run, or a part of it."""
        try:
            return _fitted(cut(self._store.open(picture), crop), LARGEST)
        except PleinairError:
            return None

    def found(self, hit: Hit) -> Shown | None:
        """Show a picture of the library, if it is still there."""
        try:
            return _fitted(self._library.picture(hit.id), THUMB) if self._library else None
        except PleinairError:
            return None

    @cached_property
    def _library(self) -> Library | None:
        from pleinair.tools.retrieval.library import Library

        try:
            return Library.open(library_folder(self._order.settings, self._places))
        except PleinairError:
            return None


def _fitted(image: Image.Image, size: int) -> Shown:
    """Shrink a picture to at most `size` pixels a side; it is never enlarged."""
    copy = image.convert("RGB")
    copy.thumbnail((size, size))
    return Shown(copy)
