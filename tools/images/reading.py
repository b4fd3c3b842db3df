"""Reading of image files as plain 8-bit RGB, or a short reason why not.

Formats: PNG, JPEG, WEBP, GIF and BMP. TIFF and the rest are left out: large decoders, rare in libraries,
and most of Pillow's advisories. Files are decoded in this process: untrusted ones are for `sandbox`.
Not covered: colour profiles (ignored), frames after the first, and a decoder that crashes or hangs.
"""

from __future__ import annotations

import io
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pleinair.tools.types import PleinairError

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 40_000_000  # decoded: 120 MB as RGB
MAX_SIDE = 8192  # pixels

_ORIENTATION = 0x0112  # the EXIF tag; values as in EXIF 2.3, 4.6.4
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # grey, 0 to 65535
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
_TRANSPARENT = ("LA", "PA", "La", "RGBA", "RGBa")

# What Pillow raises on damaged files; the mutation test checks for others.
_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    BufferError,
    EOFError,
    RuntimeError,
    SyntaxError,
    Warning,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class Unreadable(StrEnum):
    """Reasons why a file's bytes are no usable image."""

    UNKNOWN = f"not an image of a kind read here ({', '.join(_FORMATS)})"
    TOO_LARGE = f"over {MAX_SIDE} pixels a side or {MAX_PIXELS // 10**6} million in all"
    NO_PIXELS = "the image has no pixels"
    ODD_PIXELS = "pixels of a kind not read here"
    DAMAGED = "the file is damaged"
    COSTLY = "decoding it takes too much memory"


class BadPicture(PleinairError):
    """An image file is damaged, too large or of a kind not read here; `reason` is None for its path."""

    def __init__(self, message: str) -> None:
        super().__init__(str(message))
        self.reason = message if isinstance(message, Unreadable) else None


def read_picture(source: str | Path | bytes) -> Image.Image:
    """Decode the file at a path, or a file's bytes, to upright RGB without metadata.

    The first frame counts, transparency is laid on white, 16 bits are scaled to 8. Raise `BadPicture`, and
    nothing else; its text never repeats what the decoder said, which may hold addresses and paths.
    """
    data = file_bytes(source)
    with named_errors():
        return to_rgb(opened(data))


def file_bytes(source: str | Path | bytes) -> bytes:
    """Return a file's bytes; raise `BadPicture` for none and for over `MAX_BYTES`."""
    data = source if isinstance(source, bytes) else read_bytes(Path(source))
    if not data:
        raise BadPicture("the file is empty")
    if len(data) > MAX_BYTES:
        raise BadPicture(f"the file is over {MAX_BYTES // 2**20} MiB")
    return data


@contextmanager
def named_errors() -> Iterator[None]:
    """Raise whatever a decoder raises as `BadPicture`, in our own words."""
    try:
        yield
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise BadPicture(Unreadable.UNKNOWN) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPicture(Unreadable.TOO_LARGE) from None
    except MemoryError:
        raise BadPicture(Unreadable.COSTLY) from None
    except _ERRORS:
        raise BadPicture(Unreadable.DAMAGED) from None


def read_bytes(path: Path) -> bytes:
    """Read a regular file of at most `MAX_BYTES`; raise `BadPicture` for anything else."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
            raise BadPicture("not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError):
        raise BadPicture("the file cannot be opened") from None
    if len(data) > MAX_BYTES:
        raise BadPicture(f"the file is over {MAX_BYTES // 2**20} MiB")
    return data


def to_rgb(image: Image.Image) -> Image.Image:
    """Copy an image of any usual mode as bare 8-bit RGB, transparency on white.

    Raise `BadPicture` when it is over the limits or of a mode with no agreed range (`F`, `LAB`, `HSV`).
    """
    _require_size(image)
    if image.mode in _DEEP:
        rgb = _shallow(image).convert("RGB")
    elif image.mode in _TRANSPARENT or (image.mode in _PLAIN and image.has_transparency_data):
        rgb = _on_white(image.convert("RGBA"))
    elif image.mode in _PLAIN:
        rgb = image.convert("RGB")
    else:
        raise BadPicture(Unreadable.ODD_PIXELS)
    rgb.info.clear()
    return rgb


def opened(data: bytes) -> Image.Image:
    """Decode a file's bytes upright, in the file's own mode; raise `BadPicture` or any of `_ERRORS`."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        _require_size(image)
        image.load()
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def _require_size(image: Image.Image) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise BadPicture(Unreadable.NO_PIXELS)
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise BadPicture(Unreadable.TOO_LARGE)


def _shallow(image: Image.Image) -> Image.Image:
    deep = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
    return Image.fromarray(((deep + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
