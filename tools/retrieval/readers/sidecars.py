"""Reader of files beside an image and of its name: `wren.txt`, `.caption`, `.json`, `.xmp` for `wren.jpg`.

`wren.jpg.txt` belongs to `wren.jpg` alone. Of a text file the first paragraph is the caption, without lines
of the form `de.utf8=…`, which hold translations. Not covered: formats of boxes for training detectors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from pleinair.tools.images.decoding import SUFFIXES
from pleinair.tools.retrieval.readers.embedded import of_texts
from pleinair.tools.retrieval.readers.folder import Description, Folder, Problem
from pleinair.tools.retrieval.readers.records import clean, describe, file_of, load_json
from pleinair.tools.retrieval.readers.tables import STEMS
from pleinair.tools.retrieval.readers.texts import decode

MAX_SIDECAR = 2**20  # bytes
_SUFFIXES = (".caption", ".txt", ".json", ".xmp")  # the first with a caption counts
_TRANSLATION = re.compile(r"\w+(?:[.@_-]\w+)*=")


class Sidecars:
    """Reader of the files beside an image and of its name, in the order of `_SUFFIXES`."""

    rank = 20

    def read(self, folder: Folder) -> Iterator[Description]:
        """Yield what the files beside the images contain."""
        files = [file for file in folder.files if os.path.splitext(file)[1].lower() in _SUFFIXES]
        for file in sorted(files, key=_precedence):
            images = folder.find_beside(file)
            if not images or _is_table(file) or (data := folder.read(file, MAX_SIDECAR)) is None:
                continue
            try:
                description = _READERS.get(os.path.splitext(file)[1].lower(), _of_text)(folder, file, data)
                yield from (replace(description, image=image) for image in images)
            except ValueError as error:
                folder.report(Problem(file, str(error)))


def _precedence(file: str) -> tuple[int, int, str]:
    """Return the place of a file in the order: the longer name first, then by the ending."""
    stem, suffix = os.path.splitext(file)
    return -len(stem), _SUFFIXES.index(suffix.lower()), file


def _is_table(file: str) -> bool:
    return file.lower().endswith(".json") and PurePosixPath(file).stem.lower() in STEMS


def _of_text(folder: Folder, file: str, data: bytes) -> Description:
    text = decode(data)
    if "\0" in text:
        raise ValueError("not a text")
    lines: list[str] = []
    for line in text.strip().split("\n"):
        if not line.strip() or (lines and _TRANSLATION.match(line)):
            break
        lines.append(line)
    caption = clean(" ".join(lines))
    if caption and not any(map(str.isalpha, caption)):
        raise ValueError(f"{caption[:40]!r} has no words")
    return Description("", caption)


def _of_json(folder: Folder, file: str, data: bytes) -> Description:
    record = load_json(decode(data))
    if isinstance(record, str):
        record = {"caption": record}
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    if os.path.splitext(file_of({"file": record.get("title")}))[1].lower() in SUFFIXES:
        record.pop("title")  # a file's name, as Google Takeout writes it
    return describe(folder, file, "", record)


def _of_xmp(folder: Folder, file: str, data: bytes) -> Description:
    from PIL import Image

    from pleinair.tools.images.embedded import embedded_texts

    if b":RDF" not in data:
        raise ValueError("not XMP")
    image = Image.new("1", (1, 1))
    image.info["xmp"] = data.strip()
    return of_texts("", embedded_texts(image))


_READERS = {".json": _of_json, ".xmp": _of_xmp}
