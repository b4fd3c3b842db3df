"""Reading of image files as plain 8-bit sRGB, or a short reason why not.

Files are decoded in this process: untrusted ones are for `sandbox`. Formats, colours and limits are those of
`decoding`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from pleinair.tools.images.colour import colours_of
from pleinair.tools.images.decoding import (
    FULL,
    LARGEST,
    MAX_SIDE,
    ReadOptions,
    Undecodable,
    Unreadable,
    convert_to_rgb,
    joined,
    named_errors,
    opened,
)
from pleinair.tools.types import PleinairError

_NOISE = 2  # levels of 255 within which a colour is one


class BadPicture(PleinairError):
    """An image file is damaged, too large or of a kind not read here; `reason` is None for its path."""

    def __init__(self, message: str) -> None:
        super().__init__(str(message))
        self.reason = message if isinstance(message, Unreadable) else None


def read_picture(source: str | Path | bytes, options: ReadOptions = FULL) -> Image.Image:
    """Decode the file at a path, or a file's bytes, to upright sRGB without metadata.

    With `options.alpha` it is RGBA. Raise `BadPicture`, and nothing else; its text never repeats what the
    decoder said, which may hold addresses and paths.
    """
    data = file_bytes(source, options)
    with _bad_picture(), named_errors():
        return joined(opened(data, options))


def file_bytes(source: str | Path | bytes, options: ReadOptions = FULL) -> bytes:
    """Return a file's bytes; raise `BadPicture` for none and for more than the options allow."""
    data = source if isinstance(source, bytes) else read_bytes(Path(source), options)
    if not data:
        raise BadPicture("the file is empty")
    return _within_limit(data, options)


def is_blank(image: Image.Image) -> bool:
    """Return whether an RGB image is of one colour, but for noise."""
    return all(high - low <= _NOISE for low, high in image.getextrema())  # type: ignore[misc]


def _within_limit(data: bytes, options: ReadOptions) -> bytes:
    if len(data) > options.max_bytes:
        size = options.max_bytes // 2**20
        raise BadPicture(f"the file is over {size} MiB; `library.max_pixels` allows more")
    return data


@contextmanager
def _bad_picture() -> Iterator[None]:
    """Raise `Undecodable` as `BadPicture`."""
    try:
        yield
    except Undecodable as error:
        raise BadPicture(error.reason) from None


def read_bytes(path: Path, options: ReadOptions = FULL) -> bytes:
    """Read a regular file of a size that the options allow; raise `BadPicture` for anything else."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
            raise BadPicture("not a regular file")
        with path.open("rb") as file:
            data = file.read(options.max_bytes + 1)
    except (OSError, ValueError):
        raise BadPicture("the file cannot be opened") from None
    return _within_limit(data, options)


def to_rgb(image: Image.Image) -> Image.Image:
    """Copy an image of any usual mode as bare 8-bit RGB, transparency on white.

    Raise `BadPicture` when it is over the limits or of a mode with no agreed range (`F`, `HSV`).
    """
    if min(image.size) < 1:
        raise BadPicture(Unreadable.NO_PIXELS)
    if max(image.size) > MAX_SIDE or image.width * image.height > LARGEST:
        raise BadPicture(f"over {MAX_SIDE} pixels a side or {LARGEST // 10**6} million in all")
    with _bad_picture():
        return convert_to_rgb(image, colours_of(image) if image.mode == "LAB" else None)
