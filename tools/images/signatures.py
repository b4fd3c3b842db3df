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
_SUFFIXES = {
    **{b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp"},
    **{b"II": ".tif", b"MM": ".tif", b"\xff\x0a": ".jxl", b"\x00\x00\x00\x0cJXL": ".jxl"},
}
_BITMAP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes


def is_image(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is of a usual image format."""
    if head.startswith(_BEGINNINGS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return True
    if head[4:8] == b"ftyp":
        return head[8:12] in _BRANDS
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS


def suffix_of(head: bytes) -> str:
    """Return the ending that an image file with these first bytes usually has, "" for no image."""
    if not is_image(head):
        return ""
    if head[4:8] == b"ftyp":
        return ".avif" if head[8:12] in (b"avif", b"avis") else ".heic"
    return next(suffix for beginning, suffix in _SUFFIXES.items() if head.startswith(beginning))
