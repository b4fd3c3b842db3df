"""Image files with the containers of C2PA manifests, whose contents are no real signature."""

from __future__ import annotations

import io

from PIL import Image
from support.hostile_files import chunk

MANIFEST = b"\0\0\0\x28jumb\0\0\0\x20jumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9bq\x03c2pa\0 manifest"


def encoded(image: Image.Image, kind: str) -> bytes:
    """Encode an image as PNG, JPEG or WEBP."""
    file = io.BytesIO()
    image.save(file, kind, quality=90)
    return file.getvalue()


def signed(image: Image.Image, kind: str) -> bytes:
    """Encode an image with a manifest in the place where its kind of file has one."""
    data = encoded(image, kind)
    if kind == "PNG":
        return data[:33] + chunk(b"caBX", MANIFEST) + data[33:]
    if kind == "WEBP":
        padded = MANIFEST + b"\0" * (len(MANIFEST) % 2)
        body = data[8:] + b"C2PA" + len(MANIFEST).to_bytes(4, "little") + padded
        return b"RIFF" + len(body).to_bytes(4, "little") + body
    segment = b"JP\0\x01\0\0\0\x01" + MANIFEST
    return data[:2] + b"\xff\xeb" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]
