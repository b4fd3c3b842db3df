"""Odd, broken and hostile image files, all generated here."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image, ImageCms

from pleinair.tools.images.profiles import ADOBE_RGB, DISPLAY_P3, icc_profile

pillow_heif.register_heif_opener()

GRADIENT = np.linspace(0, 255, 48 * 32 * 3).reshape(32, 48, 3).astype(np.uint8)


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(GRADIENT).convert(mode)


def deep(kind: str = "PNG") -> bytes:
    ramp = np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.uint16)
    return save(Image.fromarray(ramp), kind)


def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    return save(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)


def pages() -> bytes:
    """Build a TIFF of three pages, the first one red."""
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    return save(frames[0], "TIFF", save_all=True, append_images=frames[1:])


def deep_colours() -> bytes:
    """Build a TIFF of 16 bits a channel, whose high bytes are `GRADIENT`."""
    height, width, _ = GRADIENT.shape
    pixels = (GRADIENT.astype("<u2") * 257).tobytes()
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 14), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(pixels))]
    place = 14 + len(pixels)
    table = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHIHH", tag, kind, count, value, 0)
        if kind == 3 and count == 1
        else struct.pack("<HHII", tag, kind, count, value)
        for tag, kind, count, value in entries
    )
    return struct.pack("<2sHI3H", b"II", 42, place, 16, 16, 16) + pixels + table + bytes(4)


def rotated(orientation: int) -> bytes:
    upright = Image.new("RGB", (40, 20), "white")
    upright.paste("black", (0, 0, 8, 8))  # a mark in the upper left corner
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(upright, "PNG", exif=exif)


def lab() -> Image.Image:
    """Return the gradient in CIELAB."""
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(gradient(), *profiles, outputMode="LAB")
    assert converted is not None
    return converted


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    rows = zlib.compress(bytes(min((width // 8 + 1) * height, 10**7)), 9)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


GOOD: dict[str, Callable[[], bytes]] = {
    "png": lambda: save(gradient(), "PNG"),
    "png interlaced palette": lambda: save(gradient("P"), "PNG", transparency=3),
    "png 16-bit": deep,
    "png 1-bit": lambda: save(gradient("1"), "PNG"),
    "png alpha": lambda: save(gradient("RGBA"), "PNG"),
    "png grey alpha": lambda: save(gradient("LA"), "PNG"),
    "png animated": lambda: animation("PNG"),
    "png rotated": lambda: rotated(6),
    "jpeg": lambda: save(gradient(), "JPEG"),
    "jpeg progressive": lambda: save(gradient(), "JPEG", progressive=True),
    "jpeg cmyk": lambda: save(gradient("CMYK"), "JPEG"),
    "jpeg grey": lambda: save(gradient("L"), "JPEG"),
    "gif": lambda: save(gradient("P"), "GIF"),
    "gif animated": lambda: animation("GIF"),
    "webp": lambda: save(gradient(), "WEBP"),
    "webp animated": lambda: animation("WEBP"),
    "webp alpha": lambda: save(gradient("RGBA"), "WEBP", lossless=True),
    "jpeg adobe rgb": lambda: save(gradient(), "JPEG", icc_profile=icc_profile(ADOBE_RGB)),
    "png p3 alpha": lambda: save(gradient("RGBA"), "PNG", icc_profile=icc_profile(DISPLAY_P3)),
    "tiff": lambda: save(gradient(), "TIFF"),
    "tiff deflate": lambda: save(gradient(), "TIFF", compression="tiff_deflate"),
    "tiff grey 16-bit": lambda: deep("TIFF"),
    "tiff 16-bit": deep_colours,
    "tiff pages": pages,
    "tiff cmyk": lambda: save(gradient("CMYK"), "TIFF", compression="tiff_lzw"),
    "tiff lab": lambda: save(lab(), "TIFF"),
    "heic": lambda: save(gradient(), "HEIF"),
    "heic alpha": lambda: save(gradient("RGBA"), "HEIF"),
    "avif": lambda: save(gradient(), "AVIF"),
    "avif alpha": lambda: save(gradient("RGBA"), "AVIF"),
    "bmp": lambda: save(gradient(), "BMP"),
    "bmp palette": lambda: save(gradient("P"), "BMP"),
}

BAD: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"a blue jay",
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "half a png": lambda: GOOD["png"]()[: len(GOOD["png"]()) // 2],
    "truncated jpeg": lambda: GOOD["jpeg"]()[:200],
    "header only": lambda: GOOD["png"]()[:40],
    "jpeg xl": lambda: b"\xff\x0a" + bytes(100),
    "raw": lambda: save(gradient(), "TIFF", tiffinfo={50706: b"\1\4\0\0"}),
    "ppm": lambda: save(gradient(), "PPM"),
    "ico": lambda: save(gradient(), "ICO"),
    "postscript": lambda: save(gradient(), "EPS"),
    "too wide": lambda: bomb(70_000, 8),
    "too many pixels": lambda: bomb(8000, 8000),
    "bomb that only warns": lambda: bomb(8192, 16000),
    "bomb": lambda: bomb(60000, 60000),
}


def text_bomb(kind: bytes, size: int) -> bytes:
    """Build a small PNG with a compressed text, or colour profile, of `size` bytes."""
    body = b"Comment\0\0" + zlib.compress(bytes(size), 9)
    png = GOOD["png"]()
    return png[:33] + chunk(kind, body) + png[33:]


def jpeg_of(width: int, height: int) -> bytes:
    """Build a JPEG that claims another size than it has."""
    data = bytearray(GOOD["jpeg"]())
    size_at = data.index(b"\xff\xc0") + 5
    data[size_at : size_at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def gif_of(width: int, height: int) -> bytes:
    """Build a GIF whose screen claims another size than it has."""
    data = bytearray(GOOD["gif"]())
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


BOMBS: dict[str, Callable[[], bytes]] = {
    "png of 2.5 gigapixels": lambda: bomb(50_000, 50_000),
    "png of the largest size": lambda: bomb(2**31 - 1, 2**31 - 1),
    "png with 50 MB of text": lambda: text_bomb(b"zTXt", 5 * 10**7),
    "png with a 50 MB profile": lambda: text_bomb(b"iCCP", 5 * 10**7),
    "jpeg of 65,000 pixels a side": lambda: jpeg_of(65_000, 65_000),
    "gif of 65,535 pixels a side": lambda: gif_of(65_535, 65_535),
    "png with rows for a tenth": lambda: bomb(8000, 5000)[:2000],
}


def zipped(text: bytes) -> bytes:
    """Build a ZIP file with one page in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("index.html", text)
    return file.getvalue()


SCRIPT = b"<script>alert(1)</script>"
POLYGLOTS: dict[str, Callable[[], bytes]] = {
    "gif and a script": lambda: GOOD["gif"]() + SCRIPT,
    "gif that is JavaScript": lambda: GOOD["gif"]().replace(b"GIF87a", b"GIF89a") + b"*/=1;alert(1)",
    "jpeg and a page": lambda: GOOD["jpeg"]()[:2] + b"\xff\xfe\x00\x1b" + SCRIPT + GOOD["jpeg"]()[2:],
    "png and an archive": lambda: GOOD["png"]() + zipped(SCRIPT),
    "png and a jpeg": lambda: GOOD["png"]() + GOOD["jpeg"](),
    "png with a program in its text": lambda: (
        GOOD["png"]()[:33] + chunk(b"tEXt", b"Comment\0<?php system($_GET['c']);") + GOOD["png"]()[33:]
    ),
    "a document and a jpeg": lambda: b"%PDF-1.7\n" + GOOD["jpeg"](),
    "a page and a gif": lambda: SCRIPT + GOOD["gif"](),
    "bmp named by its first letters alone": lambda: b"BM" + SCRIPT * 9,
}


def mutate(data: bytes, rng: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(min(len(broken), rng.choice((64, 10**9))))
        match rng.randrange(4):
            case 0:
                broken[place] = rng.randrange(256)
            case 1:
                broken[place] ^= 1 << rng.randrange(8)
            case 2:
                del broken[place : place + rng.randint(1, 16)]
            case 3:
                broken[place:place] = rng.randbytes(rng.randint(1, 16))
        if not broken:
            break
    return bytes(broken)
