"""Texts that programs and cameras write into image files: EXIF, IPTC, XMP and the text chunks of PNG.

For the process that decodes untrusted files: what is read here was written by anybody. XML is read without
entities. Not covered: texts in films, and the graphs of nodes that ComfyUI embeds.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import defusedxml.ElementTree
from PIL import Image, ImageFile, IptcImagePlugin

from pleinair.tools.images.decoding import Opened, ReadOptions, load_decoders

MAX_TEXT = 10_000  # characters of each
_PIXELS = 40_000_000  # of a PNG that is decoded for the chunks behind its pixels
_EXIF = 0x8769  # directory of EXIF's own tags
_USER_COMMENT = 0x9286
_WINDOWS = 0x9C9B  # the first of Windows' tags
_BASE = {  # EXIF tags, as in EXIF 2.3 and Windows' own
    "description": (0x010E, 0x9C9C, 0x9C9F),  # ImageDescription, XPComment, XPSubject
    "title": (0x9C9B,),
    "author": (0x013B, 0x9C9D),
    "rights": (0x8298,),
    "tags": (0x9C9E,),  # XPKeywords
}
_IPTC = {  # record and number of the data set, as in IPTC-IIM 4.2
    "description": ((2, 120),),
    "title": ((2, 105), (2, 5)),
    "author": ((2, 80),),
    "rights": ((2, 116),),
    "source": ((2, 110), (2, 115)),
    "tags": ((2, 25),),
}
_XMP = {  # local names
    "description": ("description", "AltTextAccessibility"),
    "title": ("Headline", "title"),
    "author": ("creator",),
    "license": ("WebStatement", "license", "UsageTerms"),
    "rights": ("rights",),
    "source": ("Credit",),
    "tags": ("subject",),
}
_PNG = {
    "description": ("Description", "description", "Comment", "comment"),
    "title": ("Title", "title"),
    "author": ("Author", "author", "Artist"),
    "license": ("License", "license"),
    "rights": ("Copyright", "copyright"),
    "parameters": ("parameters",),
}
_CODES = {
    b"ASCII\0\0\0": "utf-8",
    b"UNICODE\0": "utf-16-be",
    b"JIS\0\0\0\0\0": "shift_jis",
    b"\0" * 8: "utf-8",
}
_NEGATIVE = re.compile(r"\n\s*(?:Negative prompt:|Steps: *\d)")
_NETWORK = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>")


# Python loads these when they are first used, when modules can no longer be opened.
for _encoding in (*_CODES.values(), "utf-16-le", "latin-1", "cp1252"):
    codecs.lookup(_encoding)
defusedxml.ElementTree.fromstring("<a/>")


def open_texts(data: bytes, options: ReadOptions) -> Opened:
    """Return a file's texts with one pixel in place of the image; of a JPEG its beginning suffices."""
    load_decoders()
    with Image.open(io.BytesIO(data)) as image:
        return Opened(Image.new("RGB", (1, 1)), texts=embedded_texts(image))


def embedded_texts(image: Image.Image) -> dict[str, str]:
    """Return caption, author, rights, license, source and tags, as far as an open image file has them.

    A description comes before a title, and both before the prompt of a generator; of each the first of XMP,
    IPTC, EXIF and PNG counts.
    """
    texts: dict[str, str] = {}
    for read in (_xmp, _iptc, _exif, _png):
        try:
            pairs = [(name, _prompt(text)) for name, text in read(image)]
        except Exception:  # parsers of what anybody wrote raise anything; the other places still count
            continue
        for name, text in pairs:
            if line := text.replace("\0", " ").strip()[:MAX_TEXT]:
                texts.setdefault(name, line)
    captions = [texts.pop(name) for name in ("description", "title", "parameters") if name in texts]
    return texts | ({"caption": captions[0]} if captions else {})


def _prompt(text: str) -> str:
    """Return the positive prompt of the settings that AUTOMATIC1111 writes, any other text as it is."""
    return _NETWORK.sub("", _NEGATIVE.split(text, maxsplit=1)[0])


def _xmp(image: Image.Image) -> Iterator[tuple[str, str]]:
    found = dict[str, Any]()
    waiting: list[Any] = [image.getxmp()]
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                found.setdefault(key, inner)
                waiting.append(inner)
    for name, keys in _XMP.items():
        yield from ((name, _plain(found[key])) for key in keys if key in found)


def _plain(value: Any) -> str:
    """Return the text of an XMP value: of alternatives the default, of a list all."""
    while isinstance(value, Mapping):
        value = next(
            (value[key] for key in ("Alt", "Seq", "Bag", "li", "text", "resource") if key in value), ""
        )
    if isinstance(value, list):
        is_default = [isinstance(part, Mapping) and part.get("lang") in ("x-default", "en") for part in value]
        parts = [value[is_default.index(True)]] if True in is_default else value
        return "; ".join(part if isinstance(part, str) else _plain(part) for part in parts)
    return value if isinstance(value, str) else ""


def _iptc(image: Image.Image) -> Iterator[tuple[str, str]]:
    if not isinstance(image, ImageFile.ImageFile):
        return
    sets = IptcImagePlugin.getiptcinfo(image) or {}
    for name, keys in _IPTC.items():
        for value in (sets[key] for key in keys if key in sets):
            parts = value if isinstance(value, list) else [value]
            yield name, "; ".join(map(_decoded, parts))


def _exif(image: Image.Image) -> Iterator[tuple[str, str]]:
    exif = image.getexif()
    for name, tags in _BASE.items():
        yield from ((name, _exif_text(exif[tag], tag)) for tag in tags if tag in exif)
    comment = exif.get_ifd(_EXIF).get(_USER_COMMENT)
    if isinstance(comment, bytes):
        yield "parameters", _commented(comment)
    elif comment:
        yield "parameters", _exif_text(comment)


def _exif_text(value: Any, tag: int = 0) -> str:
    """Return the text of a tag: Pillow reads ASCII as Latin-1, and those of Windows are UTF-16 in bytes."""
    if isinstance(value, str):
        return _decoded(value.encode("latin-1")) if all(ord(char) < 256 for char in value) else value
    if not isinstance(value, bytes | tuple):
        return ""
    return bytes(value).decode("utf-16-le", "replace") if tag >= _WINDOWS else _decoded(bytes(value))


def _commented(value: bytes) -> str:
    encoding = _CODES.get(value[:8])
    if encoding == "utf-16-be" and value[8:9] != b"\0":  # no Latin letter in this order
        encoding = "utf-16-le"
    return value[8:].decode(encoding, "replace") if encoding else _decoded(value)


def _png(image: Image.Image) -> Iterator[tuple[str, str]]:
    if image.format != "PNG":
        return
    if image.width * image.height <= _PIXELS:
        image.load()
    for name, keys in _PNG.items():
        yield from ((name, image.info[key]) for key in keys if isinstance(image.info.get(key), str))


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("cp1252", "replace")
