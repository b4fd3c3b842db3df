"""Decoding of image files to plain 8-bit sRGB, or the reason why not; for the process of the sandbox.

Formats, decided by content: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF, and JPEG XL where `pillow_jxl` is
installed. Colours are converted to sRGB by the file's profile, transparency is laid on white, and the first
frame or page counts. Neither numpy nor pydantic is imported: they would take most of the time in which a
process starts. Not covered: raw files of cameras, high dynamic range, and a decoder that crashes or hangs.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import IntFlag, StrEnum
from functools import cache
from importlib import import_module
from itertools import chain
from typing import Any

from PIL import Image, UnidentifiedImageError

from pleinair.tools.images.colour import BadProfile, Colours, colours_of
from pleinair.tools.images.limits import MAX_PIXELS

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
SUFFIXES = tuple(
    ".png .jpg .jpeg .jpe .jfif .jpg_large .webp .gif .bmp .tif .tiff .heic .heif .hif .avif .jxl".split()
)
LARGEST = 40_000_000  # pixels of an image that is returned: 120 MB as RGB
MAX_SIDE = 8192  # pixels of an image that is returned
MAX_CLAIM = 65_535  # pixels a side that a file may claim
_MAX_BYTES = 64 * 2**20  # of a file, or more where more pixels are allowed
_BYTES = 3  # of a file for each pixel allowed: 16-bit grey and 8-bit colour without compression
_COEFFICIENTS = 8  # bytes for each pixel allowed that a progressive JPEG's coefficients may take
_IN_ROWS = ("JPEG", "MPO", "PNG")  # formats whose rows come from the top
_ENOUGH = 0.75  # share of the rows from which a file that ends too soon is used
STRIP = 4 * 2**20  # bytes of RGB made at once, so that a large image is never there twice

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
_ON_ITS_SIDE = tuple(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # grey, 0 to 65535
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB")
_REDUCED_AS_THEY_ARE = ("L", "RGB", "CMYK")  # others are converted first: palettes, transparency, 16 bits
_TRANSPARENT = ("LA", "PA", "La", "RGBA", "RGBa")


class Unreadable(StrEnum):
    """Reasons why a file's bytes are no usable image."""

    UNKNOWN = f"not an image of a kind read here ({', '.join((*_FORMATS, 'HEIC'))})"
    JPEG_XL = "JPEG XL needs a decoder: install the package `pillow-jxl-plugin`"
    RAW = "a raw file of a camera; export it as JPEG, TIFF or HEIC"
    TOO_LARGE = "more pixels than `library.max_pixels` allows"
    NO_PIXELS = "the image has no pixels"
    ODD_PIXELS = "pixels of a kind not read here"
    DAMAGED = "the file is damaged"
    COSTLY = "decoding it takes more memory than `library.max_pixels` allows"


class Undecodable(Exception):
    """A file's bytes are no usable image."""

    def __init__(self, reason: Unreadable) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Note(IntFlag):
    """What was made up for in a file that is used all the same, in the words of `NOTES`."""

    CUT = 1
    PROFILE = 2


NOTES = {
    Note.CUT: "the file ends too soon; the missing part is left out",
    Note.PROFILE: "its colour profile is damaged or of other colours; read without it",
}


@dataclass(frozen=True)
class ReadOptions:
    """How an image is read.

    Args:
        side: pixels; the image may come reduced, its shorter side never below this. 0: not reduced.
        max_pixels: of a file; a JPEG may have as many more as it can be reduced while it is decoded.
        alpha: whether the image comes as RGBA, with its own transparency, rather than laid on white.
    """

    side: int = 0
    max_pixels: int = MAX_PIXELS
    alpha: bool = False

    @property
    def mode(self) -> str:
        """Return the mode of the image that is returned."""
        return "RGBA" if self.alpha else "RGB"

    @property
    def max_bytes(self) -> int:
        """Return how large a file may be."""
        return max(_MAX_BYTES, _BYTES * self.max_pixels)


FULL = ReadOptions()


@dataclass(frozen=True)
class Opened:
    """Decoded image, upright, in its own mode; `colours` is what still has to be applied to it.

    `texts` are those embedded in the file, by name; with `alpha` the pixels are RGBA. `size` is the width and
    height in pixels, upright, before the image was reduced; zeros if unknown.
    """

    image: Image.Image
    colours: Colours | None = None
    note: Note = Note(0)
    texts: Mapping[str, str] = field(default_factory=dict)
    alpha: bool = False
    size: tuple[int, int] = (0, 0)

    def strips(self, factor: int = 1) -> Iterator[Image.Image]:
        """Yield the image's pixels from the top, some megabytes at once, each side divided by `factor`."""
        width, height = self.image.size
        convert = _rgba if self.alpha else convert_to_rgb
        rows = max(1, STRIP // (3 * width * factor)) * factor
        for top in range(0, height, rows):
            box = (0, top, width, min(height, top + rows))
            strip = self.image if rows >= height else self.image.crop(box)
            if factor > 1 and strip.mode in _REDUCED_AS_THEY_ARE and not strip.has_transparency_data:
                yield convert(strip.reduce(factor), self.colours)
            elif factor > 1:
                yield convert(strip, self.colours).reduce(factor)
            else:
                yield convert(strip, self.colours)


@contextmanager
def named_errors() -> Iterator[None]:
    """Raise whatever a decoder raises as `Undecodable`."""
    try:
        yield
    except Undecodable:
        raise
    except UnidentifiedImageError:
        raise Undecodable(Unreadable.UNKNOWN) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Undecodable(Unreadable.TOO_LARGE) from None
    except MemoryError:
        raise Undecodable(Unreadable.COSTLY) from None
    except Exception:  # decoders raise anything at damaged files
        raise Undecodable(Unreadable.DAMAGED) from None


def convert_to_rgb(image: Image.Image, colours: Colours | None) -> Image.Image:
    """Convert an image of any usual mode to RGB, on white; raise `Undecodable` for others."""
    if image.mode in _DEEP:
        image = _shallow(image)
    if image.mode in _TRANSPARENT or (image.mode in _PLAIN and image.has_transparency_data):
        rgb = _on_white(image.convert("RGBA"), colours)
    elif image.mode in _PLAIN:
        rgb = _converted(image, colours)
    else:
        raise Undecodable(Unreadable.ODD_PIXELS)
    rgb.info.clear()
    return rgb


def _rgba(image: Image.Image, colours: Colours | None) -> Image.Image:
    """Return an image with its own transparency, of which the colours below are kept."""
    transparent = image.mode in _TRANSPARENT or (image.mode in _PLAIN and image.has_transparency_data)
    with_alpha = image.convert("RGBA") if transparent else None
    rgb = convert_to_rgb(with_alpha.convert("RGB") if with_alpha else image, colours)
    rgb.putalpha(with_alpha.getchannel("A") if with_alpha else 255)
    return rgb


def _converted(image: Image.Image, colours: Colours | None) -> Image.Image:
    return colours.convert(image.convert(colours.mode)) if colours else image.convert("RGB")


def _on_white(image: Image.Image, colours: Colours | None) -> Image.Image:
    if colours:
        alpha = image.getchannel("A")
        image = _converted(image.convert("RGB"), colours)
        image.putalpha(alpha)
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _shallow(image: Image.Image) -> Image.Image:
    # (level + 128) // 257, as 65535 = 255 * 257; .5 more keeps the quotient off whole numbers
    rounded = image.convert("I").point(lambda level: level * (1 / 257) + 128.5 / 257)
    return rounded.convert("L")


def opened(data: bytes, options: ReadOptions = FULL) -> Opened:
    """Decode a file's bytes; raise anything for a damaged one."""
    with Image.open(io.BytesIO(data), formats=_formats(data)) as image:
        _require_usual(image)
        size = image.size
        _draft(image, options)
        pixels, note = _load(image, data, options)
        try:
            colours = colours_of(image)
        except BadProfile:
            colours, note = None, note | Note.PROFILE
        turn = _turn(image)
    size = size[::-1] if turn in _ON_ITS_SIDE else size
    read = Opened(pixels, colours, note, alpha=options.alpha, size=size)
    if (factor := _factor(pixels.size, options)) > 1:
        read = replace(read, image=joined(read, factor), colours=None)
    return read if turn is None else replace(read, image=read.image.transpose(turn))


def _turn(image: Any) -> Image.Transpose | None:
    """Return what makes an image upright; a JPEG XL decoder has done so, except for a JPEG packed in it."""
    if image.format == "JXL" and not image.jpeg:
        return None
    return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))


def needs_threads(data: bytes) -> bool:
    """Return whether a file may be HEIC, whose decoder, libde265, always starts a thread."""
    return data[4:8] == b"ftyp"


def _formats(data: bytes) -> tuple[str, ...]:
    """Return the formats that a file may have, after loading decoders that few files need."""
    if data[:2] == b"\xff\x0a" or data[:12] == b"\0\0\0\x0cJXL \r\n\x87\n":
        if "JXL" not in load_decoders():
            raise Undecodable(Unreadable.JPEG_XL)
        return ("JXL",)
    if needs_threads(data) and "HEIF" in load_decoders():
        return (*_FORMATS, "HEIF")
    return _FORMATS


@cache  # a module that is not there is searched for once: a process without rights lists no folder again
def load_decoders() -> Mapping[str, Any]:
    """Load the decoders that are packages of their own, as far as installed; return all, by format."""
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a decoder's process may start no thread
    if "HEIF" not in Image.OPEN:
        from pillow_heif import register_heif_opener

        register_heif_opener(decode_threads=0, thumbnails=False, depth_images=False, aux_images=False)
    with suppress(ImportError):
        plugin: Any = import_module("pillow_jxl.JpegXLImagePlugin")
        plugin.DECODE_THREADS = 0  # for the same reason
    return Image.OPEN


def _require_usual(image: Image.Image) -> None:
    """Refuse what claims no or too many pixels, and the thumbnail in front of a camera's raw data."""
    width, height = image.size
    if width < 1 or height < 1:
        raise Undecodable(Unreadable.NO_PIXELS)
    if max(width, height) > MAX_CLAIM:
        raise Undecodable(Unreadable.TOO_LARGE)
    if image.format == "TIFF" and _is_raw(image):
        raise Undecodable(Unreadable.RAW)


def _is_raw(image: Any) -> bool:
    new_subfile_type, sub_ifds, dng_version = 254, 330, 50706  # TIFF 6.0, TIFF/EP, DNG 1.4
    is_thumbnail = bool(image.tag_v2.get(new_subfile_type, 0) & 1)
    return dng_version in image.tag_v2 or (is_thumbnail and sub_ifds in image.tag_v2)


def _draft(image: Any, options: ReadOptions) -> None:
    """Let a JPEG's decoder divide its sides by 1, 2, 4 or 8; refuse what stays too large."""
    if image.format not in ("JPEG", "MPO"):
        if image.width * image.height > options.max_pixels:
            raise Undecodable(Unreadable.TOO_LARGE)
        return
    scales = [scale for scale in (1, 2, 4, 8) if _fits(_divided(image.size, scale), options)]
    if not scales or _coefficients(image) > _COEFFICIENTS * options.max_pixels:
        raise Undecodable(Unreadable.TOO_LARGE)
    shorter = min(image.size)
    scale = max((scale for scale in scales if 0 < options.side <= shorter // scale), default=scales[0])
    if scale > 1:
        image.draft(None, (image.width // scale, image.height // scale))


def _divided(size: tuple[int, int], factor: int) -> tuple[int, int]:
    return -(-size[0] // factor), -(-size[1] // factor)


def _fits(size: tuple[int, int], options: ReadOptions) -> bool:
    return max(size) <= MAX_SIDE and size[0] * size[1] <= min(options.max_pixels, LARGEST)


def _coefficients(image: Any) -> int:
    """Return the bytes of the coefficients that a progressive JPEG's decoder keeps."""
    if "progressive" not in image.info:
        return 0
    shares = [across * down for _, across, down, _ in image.layer]
    return int(2 * image.width * image.height * sum(shares) / max(shares))


def _factor(size: tuple[int, int], options: ReadOptions) -> int:
    """Return the whole number that a decoded image's sides are divided by."""
    factor = max(1, min(size) // options.side) if options.side else 1
    while not _fits(_divided(size, factor), options):
        factor += 1
    return factor


def joined(read: Opened, factor: int = 1) -> Image.Image:
    """Return the whole image, each side divided by `factor`."""
    size, strips = _divided(read.image.size, factor), read.strips(factor)
    first = next(strips)
    if first.size == size:
        return first
    joined, top = Image.new(first.mode, size), 0
    for strip in chain([first], strips):
        joined.paste(strip, (0, top))
        top += strip.height
    return joined


def _load(image: Any, data: bytes, options: ReadOptions) -> tuple[Image.Image, Note]:
    """Decode the pixels; of a file that ends too soon use what is there, if that is most of the image."""
    try:
        image.load()
    except OSError:
        if image.format not in _IN_ROWS:
            raise
        rest = _all_scans(data, options) if "progressive" in image.info else _first_rows(image)
        if rest is None:
            raise
        return rest, Note.CUT
    return image, Note(0)


def _first_rows(image: Any) -> Image.Image | None:
    """Return the rows that were decoded, None if they are too few."""
    if getattr(image, "_im", None) is None:
        return None
    image.tile = []  # so that nothing tries to decode the rest
    box = image.getbbox(alpha_only=False)
    if box is None or box[3] < _ENOUGH * image.height:
        return None
    rows: Image.Image = image.crop((0, 0, image.width, box[3]))
    return rows


def _all_scans(data: bytes, options: ReadOptions) -> Image.Image | None:
    """Return a progressive JPEG without its last scans, None if there is no complete one."""
    start_of_frame, start_of_scan, end = b"\xff\xc2", b"\xff\xda", b"\xff\xd9"
    if data.count(start_of_scan, data.rfind(start_of_frame)) < 2:
        return None
    image = Image.open(io.BytesIO(data + end), formats=("JPEG",))
    _draft(image, options)
    image.load()
    return image
