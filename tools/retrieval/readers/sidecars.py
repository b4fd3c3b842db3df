"""Reader of files beside an image and of the same name: `wren.txt`, `.caption` or `.json` for `wren.jpg`.

`wren.jpg.txt` belongs to `wren.jpg` alone. Of a text file the first paragraph is the caption, without lines
of the form `de.utf8=…`, which hold translations. Not covered: formats of boxes for training detectors.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from pleinair.tools.retrieval.readers.folder import Description, Folder, Problem, name_key
from pleinair.tools.retrieval.readers.records import MAX_CAPTION, clean, file_of, read_fields
from pleinair.tools.retrieval.readers.tables import STEMS
from pleinair.tools.retrieval.readers.texts import decode

MAX_SIDECAR = 2**20  # bytes
_SUFFIXES = (".caption", ".txt", ".json")  # the first with a caption counts
_TRANSLATION = re.compile(r"\w+(?:[.@_-]\w+)*=")


class Sidecars:
    """Reader of the files beside an image and of its name; their order is `.caption`, `.txt`, `.json`."""

    rank = 20

    def read(self, folder: Folder) -> Iterator[Description]:
        """Yield what the files beside the images contain."""
        images = _images_by_name(folder)
        files = [file for file in folder.files if os.path.splitext(file)[1].lower() in _SUFFIXES]
        for file in sorted(files, key=_precedence):
            beside = images.get(name_key(os.path.splitext(file)[0]), ())
            description = self._read_file(folder, file) if beside and not _is_table(file) else None
            if description is not None:
                yield from (replace(description, image=image) for image in beside)

    def _read_file(self, folder: Folder, file: str) -> Description | None:
        data = folder.read(file, MAX_SIDECAR)
        if data is None:
            return None
        if file.lower().endswith(".json"):
            return _of_json(folder, file, decode(data))
        return _of_text(folder, file, decode(data))


def _images_by_name(folder: Folder) -> dict[str, list[str]]:
    """Return the images by their names with and without the ending, in any case."""
    names: dict[str, list[str]] = defaultdict(list)
    for image in folder.images:
        for name in {image, os.path.splitext(image)[0]}:
            names[name_key(name)].append(image)
    return names


def _precedence(file: str) -> tuple[int, int, str]:
    """Return the place of a file in the order: the longer name first, then by the ending."""
    stem, suffix = os.path.splitext(file)
    return -stem.count("."), _SUFFIXES.index(suffix.lower()), file


def _is_table(file: str) -> bool:
    return file.lower().endswith(".json") and PurePosixPath(file).stem.lower() in STEMS


def _of_text(folder: Folder, file: str, text: str) -> Description | None:
    if "\0" in text:
        folder.report(Problem(file, "not a text"))
        return None
    lines: list[str] = []
    for line in text.strip().split("\n"):
        if not line.strip() or (lines and _TRANSLATION.match(line)):
            break
        lines.append(line)
    try:
        caption = clean(" ".join(lines), MAX_CAPTION)
    except ValueError as error:
        folder.report(Problem(file, str(error)))
        return None
    if caption and not any(char.isalpha() for char in caption):
        folder.report(Problem(file, f"{caption[:40]!r} has no words"))
        return None
    return Description("", caption)


def _of_json(folder: Folder, file: str, text: str) -> Description | None:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        record = None
    if isinstance(record, str):
        record = {"caption": record}
    if not isinstance(record, dict):
        folder.report(Problem(file, "not a JSON object"))
        return None
    if file_of({"file": record.get("title")}).lower() == PurePosixPath(file).stem.lower():
        record.pop("title")  # the file's own name, as Google Takeout writes it
    fields = read_fields(record)
    for field, reason in fields.faults:
        folder.report(Problem(file, reason, field=field))
    return Description("", **fields.values)
