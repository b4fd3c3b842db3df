"""A folder of images as a library: its files, their metadata, and the problems with either.

`metadata.jsonl`, in the folder or in any below it, has one JSON object a line: `file_name` relative to that
`metadata.jsonl`, and optionally `text` (or `caption`), `license`, `source` (or `source_url`) and `author`,
all strings, and `boxes`: an object of names, each with its [x0, y0, x1, y1] as fractions of width and height.
A faulty line is reported and ignored. Not covered: `metadata.csv`, parquet, tar shards and data sets by name;
hidden files and links out of the folder.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING
from unicodedata import category

from pleinair.tools.images.reading import SUFFIXES, BadPicture
from pleinair.tools.images.sandbox import read_untrusted
from pleinair.tools.retrieval.crossmodal.sparse import words
from pleinair.tools.types import BadInput, Box, Hit

if TYPE_CHECKING:
    from PIL.Image import Image

METADATA = "metadata.jsonl"
WANTED = f"a folder of images ({', '.join(SUFFIXES)}), with or without a {METADATA}"


@dataclass(frozen=True, slots=True)
class Item:
    """Image file with its metadata; `id` is its path in the library, with `/` between folders."""

    id: str
    size: int  # bytes
    mtime_ns: int
    caption: str = ""
    license: str = "unknown"
    source: str = ""
    author: str = ""
    boxes: Mapping[str, Box] = field(default_factory=dict, hash=False)

    @classmethod
    def at(cls, folder: Path, id: str) -> Item:
        """Return the file as it is now, without metadata."""
        status = (folder / id).stat()
        return cls(id=id, size=status.st_size, mtime_ns=status.st_mtime_ns)

    @property
    def stamp(self) -> tuple[int, int]:
        """Return size and mtime; while both stay, the file is assumed to be unchanged."""
        return self.size, self.mtime_ns

    def hit(self, score: float) -> Hit:
        """Return the image as a hit with its metadata."""
        names = ("id", "caption", "license", "source", "author")
        return Hit(score=score, boxes=dict(self.boxes), **{name: getattr(self, name) for name in names})


class BadLine(ValueError):
    """A line of the metadata is not usable; the text is the reason."""


class Library:
    """Contents of a folder when it was opened; images are read on demand."""

    def __init__(
        self, folder: Path, items: Mapping[str, Item], problems: tuple[str, ...], others: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.items = MappingProxyType({id: items[id] for id in sorted(items)})
        self.problems = problems  # one sentence each, with the file and the line
        self.others = others  # suffixes of the files that are no images by their names, one a file

    @classmethod
    def open(cls, folder: str | Path) -> Library:
        """List the images below `folder` and their metadata; raise `BadInput` if there are none."""
        root = Path(folder).expanduser().absolute()
        if not root.is_dir():
            raise BadInput(f"No folder {root}; accepted: {WANTED}.")
        problems: list[str] = []
        files = sorted(_walk(root, "", problems))
        items = {id: Item.at(root, id) for id in files if id.lower().endswith(SUFFIXES)}
        if not items:
            raise BadInput(f"No images in {root}; accepted: {WANTED}.")
        paths = [PurePosixPath(id) for id in files if id not in items]
        for path in paths:
            if path.name == METADATA:
                _annotate(root, path, items, problems)
        others = tuple(path.suffix.lower() or path.name for path in paths if path.name != METADATA)
        return cls(root, items, tuple(problems), others)

    def picture(self, id: str) -> Image:
        """Read an image as RGB; raise `BadInput` for an unknown id, `BadPicture` for a damaged file."""
        try:
            return read_untrusted(self.path(id))
        except BadPicture as error:
            raise BadPicture(f"`{id}`: {error}") from error

    def path(self, id: str) -> Path:
        """Return an image's file; raise `BadInput` for an id that is not in the library."""
        if id not in self.items:
            raise BadInput(f"No image `{id}` in the library {self.folder}.")
        return self.folder / id


def has_pictures(folder: Path) -> bool:
    """Return whether a library of the folder would have an image; the walk ends at the first."""
    return any(id.lower().endswith(SUFFIXES) for id in _walk(folder.absolute(), "", []))


def _walk(root: Path, below: str, problems: list[str]) -> Iterator[str]:
    """Yield the relative paths of usable files, in no order; unusable ones are added to `problems`."""
    try:
        with os.scandir(root / below) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        problems.append(f"Folder {below or '.'}: cannot be read.")
        return
    for entry in visible:
        id = f"{below}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, f"{id}/", problems)
        elif _is_usable(root, entry, id, problems):
            yield id


def _is_usable(root: Path, entry: os.DirEntry[str], id: str, problems: list[str]) -> bool:
    if not entry.is_file():  # a broken link, a pipe, or a link to a folder
        return False
    if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root.resolve()):
        problems.append(f"{id}: a link out of the library; left out.")
        return False
    if not _is_printable(id):
        problems.append(f"{ascii(id)}: a file name with control characters or not in UTF-8; left out.")
        return False
    return True


def _is_printable(name: str) -> bool:
    """Return whether logs and JSON can contain a name: no control characters, no bytes that are not UTF-8."""
    return name.isprintable() or not any(category(char) in ("Cc", "Cs") for char in name)


def _annotate(root: Path, file: PurePosixPath, items: dict[str, Item], problems: list[str]) -> None:
    """Add the metadata of a file to `items`, and its faulty lines to `problems`."""
    try:
        lines = (root / file).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError:
        problems.append(f"{file}: cannot be read.")
        return
    annotated: set[str] = set()
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                _apply(_parse(line), file.parent, items, annotated)
        except BadLine as error:
            problems.append(f"{file}, line {number}: {error}.")


def _apply(
    record: dict[str, object], folder: PurePosixPath, items: dict[str, Item], annotated: set[str]
) -> None:
    id = _target(record, folder)
    if id not in items:
        raise BadLine(f"no image `{id}`")
    if id in annotated:
        raise BadLine(f"a second line for `{id}`")
    items[id] = replace(
        items[id],
        caption=_text(record, "text", "caption") or "",
        license=_text(record, "license") or "unknown",
        source=_text(record, "source", "source_url") or "",
        author=_text(record, "author") or "",
        boxes=_boxes(record.get("boxes")),
    )
    annotated.add(id)


def _parse(line: bytes) -> dict[str, object]:
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise BadLine("not a JSON object")
    return record


def _target(record: dict[str, object], folder: PurePosixPath) -> str:
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        raise BadLine("no `file_name`")
    if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts or not _is_printable(name):
        raise BadLine("a `file_name` that leaves the folder or is no plain relative path")
    return str(folder / name)


def _text(record: dict[str, object], *names: str) -> str | None:
    """Return the first of several fields that is not blank; raise `BadLine` for one that is not a string."""
    for name in names:
        value = record.get(name)
        if value is not None and not isinstance(value, str):
            raise BadLine(f"`{name}` is not a string")
        if value and value.strip():
            return value.strip()
    return None


def _boxes(value: object) -> dict[str, Box]:
    """Read boxes by name; refuse a name without a word, or a second one that differs in spelling only."""
    if value is not None and not isinstance(value, dict):
        raise BadLine(f"`boxes` is {_shorten(value)}, not an object of names")
    boxes = {name: _box(name, corners) for name, corners in (value or {}).items()}
    spellings = [words(name) for name in boxes]
    for name, spelling in zip(boxes, spellings, strict=True):
        if not spelling or spellings.count(spelling) > 1:
            fault = "a second box under that name" if spelling else "a name without a word"
            raise BadLine(f"`boxes`: {_shorten(name)} is {fault}")
    return boxes


def _box(name: str, value: object) -> Box:
    corners = value if isinstance(value, list) else []
    numbers = [float(x) for x in corners if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(corners) == len(numbers) == 4 and all(map(math.isfinite, numbers)):
        x0, y0, x1, y1 = numbers
        if 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1:
            return x0, y0, x1, y1
    accepted = "[x0, y0, x1, y1] with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1"
    raise BadLine(f"the box of {_shorten(name)} is {_shorten(value)}; accepted: {accepted}")


def _shorten(value: object) -> str:
    return repr(value)[:80]
