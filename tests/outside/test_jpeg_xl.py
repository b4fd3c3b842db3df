"""JPEG XL by `pillow-jxl-plugin`: read in an ordinary user's limited process, upright and with its texts."""

from __future__ import annotations

import base64
import io
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pleinair.tools.images.reading import BadPicture
from pleinair.tools.retrieval.library import Library

RED, BLUE = (200, 10, 10), (10, 10, 200)
# Without loss by cjxl 0.7: eight columns of red, eight of blue, to be turned clockwise by a quarter.
TURNED = base64.b64decode("/wrBLRBQXBIIAgEAgABLGIsVANQiY2SM0gVCACgUFgAIJCA+WZJUEXpByBcoLw==")
AS_NOBODY = "setpriv --reuid=65534 --inh-caps=+dac_override --ambient-caps=+dac_override".split()
READ = """
import sys
from pleinair.tools.images.sandbox import read_untrusted
for path in sys.argv[1:]:
    print(*read_untrusted(path).size)
"""


def exif(orientation: int = 1) -> bytes:
    data = Image.Exif()
    data[0x010E], data[0x013B], data[0x0112] = "a wren", "Ada", orientation
    return data.tobytes()


def drawing() -> Image.Image:
    image = Image.new("RGB", (16, 8), RED)
    image.paste(BLUE, (8, 0, 16, 8))
    return image


def jxl(image: Image.Image, **options: Any) -> bytes:
    import pillow_jxl  # noqa: F401 (registers the format)

    buffer = io.BytesIO()
    image.save(buffer, "JXL", **options)
    return buffer.getvalue()


def container(codestream: bytes, tiff: bytes) -> bytes:
    """Return a file with EXIF data, as ISO/IEC 18181-2 lays it out."""
    boxes = ((b"JXL ", b"\r\n\x87\n"), (b"ftyp", b"jxl \0\0\0\0jxl "), (b"Exif", bytes(4) + tiff))
    return b"".join(
        struct.pack(">I", len(data) + 8) + kind + data for kind, data in (*boxes, (b"jxlc", codestream))
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("library")
    drawing().save(library / "packed.jpg", exif=exif(6), quality=95, subsampling=0)
    packed = Image.open(library / "packed.jpg")
    files = {
        "IMG_0001.jxl": jxl(drawing(), lossless=True, exif=exif()),
        "IMG_0002.jxl": jxl(drawing(), quality=95, effort=1),
        "IMG_0003": jxl(drawing().convert("RGBA"), lossless=True),
        "IMG_0004.jxl": container(TURNED, exif(6).removeprefix(b"Exif\0\0")),
        "IMG_0005.jxl": jxl(packed, lossless_jpeg=True),
    }
    for name, data in files.items():
        (library / name).write_bytes(data)
    (library / "packed.jpg").unlink()
    return library


CASES = [
    ("IMG_0001.jxl", (16, 8), ("a wren", "Ada")),
    ("IMG_0002.jxl", (16, 8), ("", "")),
    ("IMG_0003", (16, 8), ("", "")),
    ("IMG_0004.jxl", (8, 16), ("a wren", "Ada")),
    ("IMG_0005.jxl", (8, 16), ("a wren", "Ada")),
]


@pytest.mark.parametrize(("name", "size", "texts"), CASES)
def test_a_library_has_its_images_upright_and_their_texts(
    folder: Path, name: str, size: tuple[int, int], texts: tuple[str, str]
) -> None:
    library = Library.open(folder)
    image, item = library.picture(name), library.items[name]
    assert (image.size, (item.caption, item.author)) == (size, texts)
    corners: list[Any] = [image.getpixel((2, 2)), image.getpixel((size[0] - 3, size[1] - 3))]
    for corner, colour in zip(corners, (RED, BLUE), strict=True):
        assert all(abs(a - b) <= 12 for a, b in zip(corner, colour, strict=True)), corners


def test_an_ordinary_user_can_read_them(folder: Path) -> None:
    prefix = AS_NOBODY if os.geteuid() == 0 else []  # the system never limits root's threads
    paths = [str(folder / name) for name, _, _ in CASES]
    result = subprocess.run([*prefix, sys.executable, "-c", READ, *paths], capture_output=True, text=True)
    sizes = [f"{width} {height}" for _, (width, height), _ in CASES]
    assert result.stdout.splitlines() == sizes, result.stderr


def test_a_damaged_file_is_refused(folder: Path, tmp_path: Path) -> None:
    data = (folder / "IMG_0001.jxl").read_bytes()
    (tmp_path / "1.jxl").write_bytes(data[: len(data) // 2])
    drawing().save(tmp_path / "2.png")
    library = Library.open(tmp_path)
    with pytest.raises(BadPicture, match="1.jxl"):
        library.picture("1.jxl")
