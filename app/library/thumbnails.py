"""Small copies of library images as WebP files in the cache; decoded in the image sandbox once."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Literal

from PIL import Image

from pleinair.app.library.image_list import ImageList
from pleinair.app.paths import Paths
from pleinair.app.storyboard.gallery import SMALL
from pleinair.tools.images.reading import BadPicture
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import PleinairError

Size = Literal["small", "large"]
SIDES: dict[str, int] = {"small": 320, "large": 1024}  # pixels at most
QUALITY = 82


def thumbnail(images: ImageList, key: str, size: Size, places: Paths) -> bytes | None:
    """Return an image of the library as WebP by its key; None for an unknown key or an unreadable file."""
    item = images.by_key(key)
    if item is None:
        return None
    path = places.cache / "thumbnails" / size / key[:2] / f"{key}.webp"
    with suppress(OSError):
        return path.read_bytes()
    try:
        data = _encoded(images.library.picture(item.id, SIDES[size]), SIDES[size])
    except BadPicture:
        return None
    with suppress(PleinairError, OSError):  # of a full disk; then it is decoded again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data, durable=False)
    return data


def _encoded(image: Image.Image, side: int) -> bytes:
    image = image.convert("RGB")
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, lossless=max(image.size) <= SMALL)
    return file.getvalue()
