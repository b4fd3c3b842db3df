"""Open a folder of pictures as a library: what is in it, what is said about it, what is wrong with it.

`metadata.jsonl`, in the folder or in any below it, has one JSON object a line: `file_name` relative to that
`metadata.jsonl`, and as wanted `text` (or `caption`), `license`, `source` (or `source_url`) and `author`, all
strings, and `boxes`, which says where named things stand: each name with its [x0, y0, x1, y1], as fractions
of width and height. A line with a fault is a problem and says nothing of its picture. Not covered:
`metadata.csv`, parquet, tar shards and data sets by name; hidden files and links out of the folder.
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
WANTED = f"a folder of pictures ({', '.join(SUFFIXES)}), with or without a {METADATA}"


@dataclass(frozen=True, slots=True)
class Item:
    """Describe one picture file; `id` is its path in the library, with `/` between folders."""

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
        """Describe the file as it is now."""
        status = (folder / id).stat()
        return cls(id=id, size=status.st_size, mtime_ns=status.st_mtime_ns)

    @property
    def stamp(self) -> tuple[int, int]:
        """Return size and mtime: while both stay, the file is taken as unchanged."""
        return self.size, self.mtime_ns

    def hit(self, score: float) -> Hit:
        """Report the picture as found, with what is said about it."""
        return Hit(
            id=self.id,
            score=score,
            caption=self.caption,
            license=self.license,
            source=self.source,
            author=self.author,
            boxes=dict(self.boxes),
        )


class BadLine(ValueError):
    """A line of the metadata says nothing usable; the text is the reason."""


class Library:
    """Hold what a folder contained when it was opened; pictures are read when asked for."""

    def __init__(
        self, folder: Path, items: Mapping[str, Item], problems: tuple[str, ...], others: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.items = MappingProxyType({id: items[id] for id in sorted(items)})
        self.problems = problems  # one sentence each, naming the file and the line
        self.others = others  # endings of the files that are no pictures as far as is known, one a file

    @classmethod
    def open(cls, folder: str | Path) -> Library:
        """List the pictures below `folder` and their metadata; raise `BadInput` when there are none."""
        root = Path(folder).expanduser().absolute()
        if not root.is_dir():
            raise BadInput(f"No folder {root}: wanted {WANTED}.")
        problems: list[str] = []
        files = sorted(_walk(root, "", problems))
        items = {id: Item.at(root, id) for id in files if id.lower().endswith(SUFFIXES)}
        if not items:
            raise BadInput(f"No pictures in {root}: wanted {WANTED}.")
        for id in files:
            if PurePosixPath(id).name == METADATA:
                _annotate(root, id, items, problems)
        rest = [PurePosixPath(id) for id in files if id not in items]
        others = tuple(one.suffix.lower() or one.name for one in rest if one.name != METADATA)
        return cls(root, items, tuple(problems), others)

    def picture(self, id: str) -> Image:
        """Read one picture as RGB; raise `BadInput` for an unknown id, `BadPicture` for a damaged file."""
        try:
            return read_untrusted(self.path(id))
        except BadPicture as error:
            raise BadPicture(f"`{id}`: {error}") from error

    def path(self, id: str) -> Path:
        """Return a picture's file; raise `BadInput` for an id that is not in the library."""
        if id not in self.items:
            raise BadInput(f"No picture `{id}` in the library {self.folder}.")
        return self.folder / id


def has_pictures(folder: Path) -> bool:
    """Tell whether a library would have a picture; the walk ends at the first."""
    return any(id.lower().endswith(SUFFIXES) for id in _walk(folder.absolute(), "", []))


def _walk(root: Path, below: str, problems: list[str]) -> Iterator[str]:
    """Yield the relative paths of the files that may be used, in no order; unusable ones become problems."""
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
        elif _usable(root, entry, id, problems):
            yield id


def _usable(root: Path, entry: os.DirEntry[str], id: str, problems: list[str]) -> bool:
    if not entry.is_file():  # a broken link, a pipe, or a link to a folder
        return False
    if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root.resolve()):
        problems.append(f"{id}: a link out of the library; left out.")
        return False
    if not _writable(id):
        problems.append(f"{ascii(id)}: a file name with control characters or not in UTF-8; left out.")
        return False
    return True


def _writable(name: str) -> bool:
    """Tell whether records and logs can hold a name: no control characters, no bytes that are not UTF-8."""
    return name.isprintable() or not any(category(char) in ("Cc", "Cs") for char in name)


def _annotate(root: Path, file: str, items: dict[str, Item], problems: list[str]) -> None:
    """Add what the metadata file says to `items`, and what it says wrongly to `problems`."""
    seen: set[str] = set()
    try:
        lines = (root / file).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError:
        problems.append(f"{file}: cannot be read.")
        return
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                _apply(line, PurePosixPath(file).parent, items, seen)
        except BadLine as fault:
            problems.append(f"{file}, line {number}: {fault}.")


def _apply(line: bytes, folder: PurePosixPath, items: dict[str, Item], seen: set[str]) -> None:
    record = _parse(line)
    id = _target(record, folder)
    if id not in items:
        raise BadLine(f"no picture `{id}`")
    if id in seen:
        raise BadLine(f"a second line for `{id}`")
    items[id] = replace(
        items[id],
        caption=_first(record, "text", "caption") or "",
        license=_first(record, "license") or "unknown",
        source=_first(record, "source", "source_url") or "",
        author=_first(record, "author") or "",
        boxes=_boxes(record.get("boxes")),
    )
    seen.add(id)


def _parse(line: bytes) -> dict[str, object]:
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise BadLine("not a JSON object") from None
    if not isinstance(record, dict):
        raise BadLine("not a JSON object")
    return record


def _target(record: dict[str, object], folder: PurePosixPath) -> str:
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        raise BadLine("no `file_name`")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or ".." in parts or not _writable(name):
        raise BadLine("a `file_name` that leaves the folder or is no plain relative path")
    return str(folder / name)


def _first(record: dict[str, object], *names: str) -> str | None:
    for name in names:
        value = record.get(name)
        if value is not None and not isinstance(value, str):
            raise BadLine(f"`{name}` is not a string")
        if value and value.strip():
            return value.strip()
    return None


def _boxes(value: object) -> dict[str, Box]:
    """Read where named things stand; every name has a word, and none is there twice but for its spelling."""
    if value is not None and not isinstance(value, dict):
        raise BadLine(f"`boxes` is {_brief(value)}, wanted an object of names")
    boxes = {name: _box(name, corners) for name, corners in (value or {}).items()}
    spelled = [tuple(words(name)) for name in boxes]
    for name, read in zip(boxes, spelled, strict=True):
        if not read or spelled.count(read) > 1:
            fault = "a second box under that name" if read else "a name without a word"
            raise BadLine(f"`boxes`: {_brief(name)} is {fault}")
    return boxes


def _box(name: str, value: object) -> Box:
    corners = value if isinstance(value, list) else []
    numbers = [float(one) for one in corners if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(corners) == len(numbers) == 4 and all(map(math.isfinite, numbers)):
        x0, y0, x1, y1 = numbers
        if 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1:
            return x0, y0, x1, y1
    wanted = "[x0, y0, x1, y1] with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1"
    raise BadLine(f"the box of {_brief(name)} is {_brief(value)}, wanted {wanted}")


def _brief(value: object) -> str:
    return repr(value)[:80]
