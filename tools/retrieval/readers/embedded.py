"""Reader of the texts in the image files themselves, as `images.embedded` finds them in a process of its own.

Files without any such text are not sent there. What was found is kept in the library's cache, by path, size
and time. Texts that every image of a camera or program carries are no captions.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from pleinair.tools.images.reading import BadPicture
from pleinair.tools.images.sandbox import Decoder
from pleinair.tools.retrieval.licenses import spdx
from pleinair.tools.retrieval.readers.folder import Description, Folder
from pleinair.tools.retrieval.readers.names import subject_of
from pleinair.tools.retrieval.readers.records import MAX_CAPTION, MAX_TEXT, clean
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import PleinairError

_VERSION = 1  # of the cache; increase it when the same file gives other texts
_JPEG_HEAD = 512 * 1024  # bytes that hold the texts of a JPEG
_MOST = 64 * 2**20  # bytes of any other file
_MARKS = (  # one of them begins every text
    *(
        b"Exif",
        b"http://ns.adobe.com",
        b"Photoshop 3.0",
        b"tEXt",
        b"iTXt",
        b"zTXt",
        b"eXIf",
        b"EXIF",
        b"XMP ",
    ),
    *(b"x:xmpmeta", b"II*\0", b"MM\0*"),
)
_CONSTANT = re.compile(  # descriptions that cameras and programs write into every image
    r"(?:[\w-]+ ){0,3}(?:digital|still) camera|(?:samsung|canon|nikon|sony|kodak|leica)(?: [\w-]*\d[\w-]*)?|"
    r"sony dsc|dcim|default|exif[_ ]jpeg[_ ]picture|hdr\w*|ascii|created with .{0,40}|screenshot|untitled|"
    r"lead technologies.*|charset=.*|file source.*|optimized by .*|[{<\[].*",
    re.IGNORECASE | re.DOTALL,
)

_Texts = Mapping[str, str]
_Stored = tuple[int, int, dict[str, str]]  # size, mtime in nanoseconds, texts


class Embedded:
    """Reader of EXIF, IPTC, XMP and the text chunks of PNG."""

    rank = 30

    def read(self, folder: Folder) -> Iterator[Description]:
        """Yield caption, license, source and author of every image that has them embedded."""
        for image, texts in _texts(folder).items():
            if texts:
                yield _description(image, texts)


def _description(image: str, texts: _Texts) -> Description:
    author, rights = _line(texts.get("author", "")), _line(texts.get("rights", ""))
    license = _license(texts.get("license", ""), rights)
    return Description(
        image,
        caption=_caption(texts.get("caption", "")),
        license=license,
        source=_line(texts.get("source", "")),
        author=author or ("" if rights == license else rights),
    )


def _caption(text: str) -> str:
    """Return a text as a caption, "" if it says nothing about the image."""
    caption = _line(text, MAX_CAPTION)
    says_nothing = _CONSTANT.fullmatch(caption) or not any(map(str.isalpha, caption))
    return "" if says_nothing or (" " not in caption and not subject_of(caption)) else caption


def _license(license: str, rights: str) -> str:
    """Return the license, by its field or by a license or reservation in the statement of rights."""
    if license := spdx(_line(license)):
        return license
    parts = (spdx(part) for part in (rights, *re.split(r"[,;|]", rights)))
    listed = next((part for part in parts if part.startswith("CC") and " " not in part), "")
    return listed or (rights if "rights reserved" in rights.lower() else "")


def _line(text: str, limit: int = MAX_TEXT) -> str:
    """Return a text on one line, without what is no Unicode and what is over the limit."""
    return clean(text.encode("utf-8", "ignore").decode()[:limit], limit)


def _texts(folder: Folder) -> dict[str, _Texts]:
    """Return the texts in every image, from the cache where the file has not changed."""
    path = folder.cache and folder.cache / f"{hashlib.sha256(os.fsencode(folder.root)).hexdigest()[:16]}.json"
    stored = _load(path) if path else {}
    before = (image for image in folder.images if image in stored)
    current = {image: stored[image] for image in before if _stamp(folder, image) == stored[image][:2]}
    changed = [image for image in folder.images if image not in current]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            jobs = pool.map(lambda image: _read(folder.root / image), changed)
            for done, (image, texts) in enumerate(zip(changed, jobs, strict=True), start=1):
                current[image] = texts
                if folder.on_progress:
                    folder.on_progress(done, len(changed))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if path and current != stored:
        _save(path, current)
    return {image: current[image][2] for image in folder.images}


def _stamp(folder: Folder, image: str) -> tuple[int, int] | None:
    try:
        status = os.stat(f"{folder.root}/{image}")
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _read(path: Path) -> _Stored:
    """Return a file's size, time and texts; no texts where it cannot be read."""
    try:
        status = path.stat()
        with path.open("rb") as file:
            data = file.read(_JPEG_HEAD)
            if not data.startswith(b"\xff\xd8"):
                data += file.read(_MOST)
    except OSError:
        return 0, 0, {}
    stamp = status.st_size, status.st_mtime_ns
    if not any(mark in data for mark in _MARKS):
        return *stamp, {}
    try:
        return *stamp, dict(_decoder().read(data).texts)
    except BadPicture:  # reported where its pixels are read
        return *stamp, {}


@cache
def _decoder() -> Decoder:
    return Decoder("pleinair.tools.images.embedded:open_texts")


def _load(path: Path) -> dict[str, _Stored]:
    try:
        content = json.loads(path.read_bytes())
        entries = content["images"].items() if content["version"] == _VERSION else ()
        return {image: (int(size), int(mtime), dict(texts)) for image, (size, mtime, texts) in entries}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}  # what it contained is read again


def _save(path: Path, images: Mapping[str, _Stored]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"version": _VERSION, "images": images}).encode())
    except (OSError, PleinairError):
        pass  # the next use reads the files again
