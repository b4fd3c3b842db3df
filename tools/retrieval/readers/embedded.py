"""Reader of the texts in the image files themselves, as `images.embedded` finds them in a process of its own.

Files without any such text are not sent there. Texts that every image of a camera or program carries are no
captions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache, partial

from pydantic import TypeAdapter

from pleinair.tools.images.reading import BadPicture
from pleinair.tools.images.sandbox import Decoder
from pleinair.tools.retrieval.licenses import spdx
from pleinair.tools.retrieval.readers.cached import Cache, read_cached
from pleinair.tools.retrieval.readers.folder import Description, Files, Folder
from pleinair.tools.retrieval.readers.names import subject_of
from pleinair.tools.retrieval.readers.records import MAX_CAPTION, MAX_TEXT, REPLACEMENT, clean, split_tags

_VERSION = 2  # of the cache; increase it when the same file gives other texts
_JPEG_HEAD = 512 * 1024  # bytes that hold the texts of a JPEG
_MOST = 64 * 2**20  # bytes of any other file
_MARKS = (  # one of them begins every text
    *(b"Exif", b"http://ns.adobe.com", b"Photoshop 3.0", b"tEXt", b"iTXt", b"zTXt", b"eXIf"),
    *(b"EXIF", b"XMP ", b"x:xmpmeta", b"II*\0", b"MM\0*"),
)
_CONSTANT = re.compile(  # descriptions that cameras and programs write into every image
    r"(?:[\w-]+ ){0,3}(?:digital|still) camera|(?:samsung|canon|nikon|sony|kodak|leica)(?: [\w-]*\d[\w-]*)?|"
    r"sony dsc|dcim|default|exif[_ ]jpeg[_ ]picture|hdr\w*|ascii|created with .{0,40}|screenshot|untitled|"
    r"lead technologies.*|charset=.*|file source.*|optimized by .*|[{<\[].*",
    re.IGNORECASE | re.DOTALL,
)
_CACHE: Cache[dict[str, str]] = TypeAdapter(dict[str, tuple[int, int, dict[str, str]]])


class Embedded:
    """Reader of EXIF, IPTC, XMP and the text chunks of PNG."""

    rank = 30

    def read(self, folder: Folder) -> Iterator[Description]:
        """Yield caption, license, source, author and tags of every image that has them embedded."""
        read = partial(_read, folder.source)
        for image, texts in read_cached(folder, folder.images, f"texts-{_VERSION}", _CACHE, read).items():
            if texts:
                yield of_texts(image, texts)


def of_texts(image: str, texts: Mapping[str, str]) -> Description:
    """Return what the texts of `images.embedded` say of an image."""
    texts = defaultdict(str, texts)
    rights = _line(texts["rights"])
    license = _license(_line(texts["license"]), rights)
    return Description(
        image,
        caption=_caption(_line(texts["caption"], MAX_CAPTION)),
        license=license,
        source=_line(texts["source"]),
        author=_line(texts["author"]) or ("" if rights == license else rights),
        tags=split_tags(_line(texts["tags"], MAX_CAPTION)),
    )


def _caption(caption: str) -> str:
    """Return a caption, "" if it says nothing about the image."""
    says_nothing = _CONSTANT.fullmatch(caption) or not any(map(str.isalpha, caption))
    return "" if says_nothing or (" " not in caption and not subject_of(caption)) else caption


def _license(license: str, rights: str) -> str:
    """Return the license, by its field or by a license or reservation in the statement of rights."""
    if license := spdx(license):
        return license
    parts = (spdx(part) for part in (rights, *re.split(r"[,;|]", rights)))
    listed = next((part for part in parts if part.startswith("CC") and " " not in part), "")
    return listed or (rights if "rights reserved" in rights.lower() else "")


def _line(text: str, limit: int = MAX_TEXT) -> str:
    """Return a text on one line, without what is over the limit."""
    return clean(text.replace(REPLACEMENT, "")[:limit], limit)


def _read(files: Files, image: str) -> dict[str, str]:
    """Return a file's texts; raise `OSError` where it cannot be read."""
    data = files.read(image, _JPEG_HEAD)
    if len(data) == _JPEG_HEAD and not data.startswith(b"\xff\xd8"):
        data = files.read(image, _MOST)
    if not any(mark in data for mark in _MARKS):
        return {}
    try:
        texts = _decoder().read(data).texts
    except BadPicture:  # reported where its pixels are read
        return {}
    return {name: text.encode("utf-8", "ignore").decode() for name, text in texts.items()}


@cache
def _decoder() -> Decoder:
    return Decoder("pleinair.tools.images.embedded:open_texts")
