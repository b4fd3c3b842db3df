"""Image files with captions and credit inside, as cameras, photographers and generators write them."""

from __future__ import annotations

import io
import struct

from PIL import Image
from PIL.PngImagePlugin import PngInfo


def jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def exif(tags: dict[int, object], comment: bytes = b"") -> bytes:
    data = Image.Exif()
    for tag, value in tags.items():
        data[tag] = value
    if comment:
        data.get_ifd(0x8769)[0x9286] = comment
    return data.tobytes()


def iptc(sets: dict[tuple[int, int], bytes]) -> bytes:
    """Return a JPEG with IPTC data in a Photoshop segment."""
    records = b"".join(
        b"\x1c" + bytes(key) + struct.pack(">H", len(value)) + value for key, value in sets.items()
    )
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + records + b"\0" * (len(records) % 2)
    segment = b"Photoshop 3.0\0" + resource
    data = jpeg()
    return data[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def png(texts: dict[str, str], *, kind: str = "text", late: bool = False) -> bytes:
    info = PngInfo()
    for key, value in texts.items():
        if kind == "itxt":
            info.add_itxt(key, value)
        else:
            info.add_text(key, value, zip=kind == "ztxt")
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG", pnginfo=info)
    data = buffer.getvalue()
    if late:  # as exiftool writes them
        start, end = data.index(b"tEXt") - 4, data.index(b"IDAT") - 4
        tail = data.index(b"IEND") - 4
        data = data[:start] + data[end:tail] + data[start:end] + data[tail:]
    return data
