"""Recognition of image files by their first bytes, whatever they are called."""

from __future__ import annotations

HEAD = 32  # bytes that suffice
_BEGINNINGS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",  # JPEG
    b"GIF87a",
    b"GIF89a",
    b"II*\x00",  # TIFF
    b"MM\x00*",
    b"II+\x00",  # BigTIFF
    b"MM\x00+",
    b"\xff\x0a",  # JPEG XL
    b"\x00\x00\x00\x0cJXL \r\n\x87\n",
)
_BRANDS = (  # of ISO media files: HEIF and AVIF; others are films
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1", b"miaf"),
    *(b"avif", b"avis"),
)
_BITMAP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes


def is_image(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is of a usual image format."""
    if head.startswith(_BEGINNINGS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return True
    if head[4:8] == b"ftyp":
        return head[8:12] in _BRANDS
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS
