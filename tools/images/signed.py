"""Signed image files: whether a PNG, JPEG or WebP file has a C2PA manifest, by its container alone.

A manifest is found and not verified. Not covered: manifests beside a file, and of other formats.
"""

from __future__ import annotations

import struct

SUFFIXES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}  # of signed files, with types
_PNG = b"\x89PNG\r\n\x1a\n"
_APP11, _START_OF_SCAN = 0xEB, 0xDA  # markers of JPEG


def signed_suffix(data: bytes) -> str:
    """Return the usual ending of a file with a C2PA manifest, one of `SUFFIXES`; "" for any other file."""
    if data.startswith(_PNG):
        return ".png" if _has_chunk(data, 8, b"caBX", ">I4s", 12) else ""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp" if _has_chunk(data, 12, b"C2PA", "<4sI", 8) else ""
    return ".jpg" if data[:2] == b"\xff\xd8" and _has_jumbf(data) else ""


def _has_chunk(data: bytes, place: int, name: bytes, head: str, around: int) -> bool:
    """Return whether a file has a chunk; `around` are the bytes of a chunk beside its contents."""
    while place + 8 <= len(data):
        fields = struct.unpack_from(head, data, place)
        size = next(field for field in fields if isinstance(field, int))
        if name in fields:
            return True
        place += around + size + (size % 2 if around == 8 else 0)  # RIFF pads to whole words
    return False


def _has_jumbf(data: bytes) -> bool:
    """Return whether a JPEG has an APP11 segment with a JUMBF box of C2PA."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _START_OF_SCAN:
        marker, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        segment = data[place + 4 : place + 2 + size]
        if marker == _APP11 and segment[:2] == b"JP" and segment[12:16] == b"jumb" and b"c2pa" in segment:
            return True
        place += 2 + size
    return False
