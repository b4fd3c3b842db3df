"""Protocol of a reader: a folder of images as it sees it, and what it returns about each image.

A reader is a class without arguments, registered in the entry point group `pleinair.reader`. All installed
readers read a library, in the order of their ranks, unless the settings list some. Of each image the first
reader with a caption supplies it, and so with license, source, author, boxes and tags, each by itself.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol
from unicodedata import category, normalize

from pleinair.tools.retrieval.containers.container import Stored
from pleinair.tools.storage.files import stamp_of
from pleinair.tools.types import Box

MAX_FILE = 256 * 2**20  # bytes of a table or sidecar
MAX_PROBLEMS = 1000  # recorded of a library; further ones are counted
_MOST_PARTS = 8  # of a path from another machine that are compared
_EDITED = re.compile(r"-edited$")  # by Google Photos, which keeps one sidecar for both files
_NUMBER = re.compile(r"_\d{1,2}$")  # of the images of one post
_TAKEOUT = re.compile(r"(.+?)(\.\w{2,5})(?:\.(s[a-z-]*))?(\(\d+\))?")  # of its sidecar's name


@dataclass(frozen=True, slots=True)
class Problem:
    """What could not be used, with the file, the line in it (from 1) and the field, where there are such."""

    file: str
    text: str
    line: int | None = None
    field: str = ""

    def __str__(self) -> str:
        return f"{self.file}{f', line {self.line}' if self.line else ''}: {self.text}."


@dataclass(frozen=True, slots=True)
class Description:
    """What one reader found about one image; an empty field is none."""

    image: str  # its path in the folder, one of `Folder.images`
    caption: str = ""  # one a line where there are several
    license: str = ""  # an SPDX identifier where there is one
    source: str = ""
    author: str = ""
    boxes: Mapping[str, Box] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    caption_model: str = ""  # name of the MLLM that wrote the caption; "": none did


class BadName(ValueError):
    """A file name in a table is not that of one image; the text is the reason."""


class Files(Protocol):
    """Files of a folder, those inside its containers included, wherever they are."""

    def stamp(self, path: str) -> tuple[int, int] | None:
        """Return size and mtime in nanoseconds, which change with the content; None without a file."""

    def read(self, path: str, limit: int) -> bytes:
        """Return the first bytes of a file, at most `limit`; raise `OSError` if it cannot be read."""

    def rows(self) -> Iterable[tuple[str, str, Stored]]:
        """Yield container, image and what the container has stored, for each image in a row of a table."""


class LocalFiles:
    """Files below a folder of this machine, without containers."""

    def __init__(self, root: Path) -> None:
        """Store the folder."""
        self._root = root

    def stamp(self, path: str) -> tuple[int, int] | None:
        """Return size and mtime in nanoseconds; None without a file."""
        return stamp_of(f"{self._root}/{path}")

    def read(self, path: str, limit: int) -> bytes:
        """Return the first bytes of a file, at most `limit`; raise `OSError` if it cannot be read."""
        with open(f"{self._root}/{path}", "rb") as stream:
            return stream.read(limit)

    def rows(self) -> Iterable[tuple[str, str, Stored]]:
        """Return nothing, as there are no containers."""
        return ()


class Folder:
    """Folder of a library: its images and its other files, as relative paths with `/`, sorted.

    `source` reads the files, which need not be on this machine; `root` is their folder, or the address as a
    path that does not exist.
    """

    def __init__(
        self,
        root: Path,
        images: Iterable[str],
        files: Iterable[str] = (),
        cache: Path | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        captions: Path | None = None,
        source: Files | None = None,
    ) -> None:
        """Store the paths below `root`, a folder for what is slow to read, a file of generated captions."""
        self.source = source or LocalFiles(root)
        self.root, self.cache, self.on_progress, self.captions = root, cache, on_progress, captions
        self.images, self.files = tuple(sorted(images)), tuple(sorted(files))
        self.problems: list[Problem] = []
        self.problem_count = 0
        self.used: set[str] = set()  # files that a reader has read

    def report(self, problem: Problem) -> None:
        """Record a problem; after `MAX_PROBLEMS` they are counted only."""
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)

    def read(self, file: str, limit: int = MAX_FILE) -> bytes | None:
        """Read one of the other files; a file that is too large or cannot be read is reported, and None."""
        self.used.add(file)
        try:
            data = self.source.read(file, limit + 1)
        except OSError:
            self.report(Problem(file, "cannot be read"))
            return None
        if len(data) > limit:
            self.report(Problem(file, f"over {limit:,} bytes"))
            return None
        return data

    def find(self, name: str, below: str = "") -> str:
        """Return the image that a file in the folder `below` means by a name; raise `BadName` if not one.

        Relative and absolute paths, Windows separators, other case and Unicode forms, and names without their
        ending match if they mean one image only. If there are no images in `below`, they may be anywhere.
        """
        if not is_printable(name):
            raise BadName("a file name with control characters or not in Unicode")
        path = self._inside(name.strip().replace("\\", "/").removeprefix("file://"))
        if ".." in PurePosixPath(path).parts:
            raise BadName(f"`{name[:200]}` leaves the folder")
        full = str(PurePosixPath(below) / path)
        key = name_key(full)
        names, stems = self._tables
        if full in names[key]:
            return full
        candidates = names[key] or stems[key] or self._elsewhere(path, below)
        if not candidates:
            raise BadName(f"no image `{name[:200]}`")
        if len(candidates) > 1:
            raise BadName(f"`{name[:200]}` means several images: {', '.join(sorted(candidates)[:3])}")
        return candidates[0]

    def _elsewhere(self, path: str, below: str) -> list[str]:
        """Return the images whose paths end like an absolute one, or like one in a folder without images."""
        parts = name_key(path).split("/")
        if path.startswith("/") or path[1:3] == ":/":  # of another machine, or from before the folder moved
            ends = ("/".join(parts[n:]) for n in range(-_MOST_PARTS, 0))
            return next((self._by_end[end] for end in ends if end in self._by_end), [])
        if below in self._places:
            return []
        images = self._by_end.get("/".join(parts), [])
        return [image for image in images if image.startswith(os.path.dirname(below))] or images

    def find_beside(self, file: str) -> list[str]:
        """Return the images that a file belongs to by its name: `wren.txt` or `wren.jpg.json` to `wren.jpg`.

        Names as Google Takeout and yt-dlp give them count, and `wren_1.jpg` and so on without a `wren.jpg`.
        """
        names, stems = self._tables
        for key in map(name_key, _image_names(os.path.splitext(file)[0])):
            if images := [*names[key], *stems[key], *self._edited[key]]:
                return list(dict.fromkeys(images))
            if file.lower().endswith(".txt") and key in self._numbered:
                return self._numbered[key]
        return []

    def _inside(self, path: str) -> str:
        """Return a path without the folder's own, and without `.` and inner `..`."""
        root = self.root.as_posix()
        if path.casefold().startswith(f"{root}/".casefold()):
            path = path[len(root) + 1 :]
        return os.path.normpath(path) if path else "."

    @cached_property
    def _tables(self) -> tuple[defaultdict[str, list[str]], ...]:
        """Images by the keys of their paths, and of those without the ending."""
        return (
            _grouped(self.images, lambda image: [image]),
            _grouped(self.images, lambda image: [os.path.splitext(image)[0]]),
        )

    @cached_property
    def _by_end(self) -> defaultdict[str, list[str]]:
        return _grouped(self.images, lambda image: _ends(image) | _ends(os.path.splitext(image)[0]))

    @cached_property
    def _edited(self) -> defaultdict[str, list[str]]:
        return _grouped(self.images, lambda image: _without(_EDITED, image))

    @cached_property
    def _numbered(self) -> defaultdict[str, list[str]]:
        return _grouped(self.images, lambda image: _without(_NUMBER, image))

    @cached_property
    def _places(self) -> set[str]:
        return {os.path.dirname(image) for image in self.images}


class Reader(Protocol):
    """Reader of one layout; readers with a lower rank take precedence, equal ones by name."""

    rank: int

    def read(self, folder: Folder) -> Iterable[Description]:
        """Yield what is known about images of the folder; report what is not understood to it."""


def name_key(name: str) -> str:
    """Return a name without the differences of case and Unicode normal form."""
    return normalize("NFC", normalize("NFC", name).casefold())


def is_printable(name: str) -> bool:
    """Return whether logs and JSON can contain a name: no control characters, no bytes that are not UTF-8."""
    return name.isprintable() or not any(category(char) in ("Cc", "Cs") for char in name)


def _grouped(images: Iterable[str], names: Callable[[str], Iterable[str]]) -> defaultdict[str, list[str]]:
    groups = defaultdict[str, list[str]](list)
    for image in images:
        for name in names(image):
            groups[name_key(name)].append(image)
    return groups


def _ends(path: str) -> set[str]:
    """Return the last part of a path, the last two, and so on."""
    parts = path.split("/")[-_MOST_PARTS:]
    return {"/".join(parts[n:]) for n in range(len(parts))}


def _without(end: re.Pattern[str], image: str) -> Iterable[str]:
    """Return a path without an end of its name, with and without the ending of the file; else nothing."""
    stem, suffix = os.path.splitext(image)
    shorter = end.sub("", stem)
    return () if shorter == stem else (shorter, shorter + suffix)


def _image_names(name: str) -> Iterable[str]:
    """Yield what the image may be called that a sidecar belongs to, by its path without the ending."""
    yield name
    yield name.removesuffix(".info")  # of yt-dlp
    if match := _TAKEOUT.fullmatch(name):  # a.jpg.supplemental-metadata(1), cut off anywhere, for a(1).jpg
        stem, suffix, extra, number = match.groups("")
        if "supplemental-metadata".startswith(extra):
            yield f"{stem}{number}{suffix}"
