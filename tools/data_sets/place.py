"""Folder in which a data set is looked for: its lists by name, however deep they lie, and its images.

Names match in any case, and the lists may lie in a folder or two of their own, as archives unpack them. A
folder of many folders is one of classes and is not searched. No image is opened.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unicodedata import normalize

from pleinair.tools.images.decoding import SUFFIXES
from pleinair.tools.retrieval.readers.texts import decode
from pleinair.tools.types import BadInput

_DEPTH = 6  # levels of folders that are searched
_MOST = 500  # folders that are searched
_CLASSES = 60  # folders in a folder of classes, from which on it is not searched
_HEAD = 4096  # bytes
_SHOWN = 3  # faults that are quoted
_SUFFIXES = frozenset(SUFFIXES)


class Place:
    """Folder with the names of what lies in its upper levels; paths are relative, with `/`."""

    def __init__(self, folder: Path) -> None:
        """List the upper levels; raise `BadInput` where there is no such folder."""
        if not folder.is_dir():
            raise BadInput(
                f"No folder {folder}.", "Name the folder that a data set's archive was unpacked in."
            )
        self.folder = folder
        self._files: dict[
            str, dict[str, str]
        ] = {}  # by folder ("" or "a/b/"): names by themselves in lower case
        self._folders: dict[str, dict[str, str]] = {}
        waiting = [""]
        for depth in range(_DEPTH):
            waiting = [inner for below in waiting for inner in self._list(below, depth)]

    def _list(self, below: str, depth: int) -> list[str]:
        files, folders = dict[str, str](), dict[str, str]()
        for entry in _entries(self.folder / below):
            (folders if entry.is_dir() else files)[entry.name.lower()] = entry.name
        self._files[below], self._folders[below] = files, folders
        searched = len(folders) < _CLASSES and len(self._files) < _MOST and depth + 1 < _DEPTH
        return [f"{below}{name}/" for name in sorted(folders.values())] if searched else []

    def find(self, *paths: str) -> str:
        """Return the first of several files that is there, at the upmost level, "" for none."""
        return next((file for path in paths for file in self._all(path.lower(), self._files)), "")

    def find_like(self, pattern: str) -> str:
        """Return the first file whose path ends like a pattern, at the upmost level, "" for none."""
        matches = re.compile(rf"(?:.*/)?{pattern}", re.IGNORECASE).fullmatch
        paths = (f"{below}{name}" for below, names in self._files.items() for name in names.values())
        return next(filter(matches, paths), "")

    def find_folder(self, *paths: str) -> str:
        """Return the first of several folders that is there, at the upmost level, with `/`; "" for none."""
        return next((f"{name}/" for path in paths for name in self._all(path.lower(), self._folders)), "")

    def _all(self, path: str, names: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
        """Yield where a path ends like the one that is looked for, the upmost first."""
        above, _, name = path.rpartition("/")
        for below, entries in names.items():
            if name in entries and f"/{below}".lower().endswith(f"/{above}/" if above else "/"):
                yield f"{below}{entries[name]}"

    def parents(self, pattern: str) -> dict[str, list[str]]:
        """Return the folders, upmost first, that hold folders of matching names, with these, sorted."""
        matches = re.compile(pattern).fullmatch
        parents = {below: sorted(filter(matches, names.values())) for below, names in self._folders.items()}
        return {below: names for below, names in parents.items() if names}

    def folders(self, below: str) -> list[str]:
        """Return the names of the folders in one, sorted."""
        return sorted(self._folders.get(below, {}).values())

    def files(self, below: str = "") -> list[str]:
        """Return the names of the files in a folder of the upper levels, sorted."""
        return sorted(self._files.get(below, {}).values())

    def text(self, file: str) -> str:
        """Return a file's text."""
        return decode(_read(self.folder / file))

    def head(self, file: str) -> str:
        """Return a file's first line, as far as it is in the first bytes; no file is read whole for it."""
        lines = decode(_read(self.folder / file, _HEAD)).splitlines()
        return lines[0] if lines else ""

    def lines(self, file: str) -> list[str]:
        """Return the lines of a file that are not blank."""
        return [line.strip() for line in self.text(file).splitlines() if line.strip()]

    def rows(self, file: str) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the number and the cells, by their column, of each row of a table with a head."""
        reader = csv.DictReader(io.StringIO(self.text(file), newline=""))
        for row in reader:
            cells = {(key or "").strip(): str(value or "").strip() for key, value in row.items()}
            if any(cells.values()):
                yield reader.line_num, cells

    def json(self, file: str) -> Any:
        """Return the value of a JSON file; raise `BadInput` for what is none."""
        try:
            return json.loads(self.text(file))
        except ValueError as error:
            raise BadInput(
                f"{file} in {self.folder}: not JSON: {error}.", "Unpack its archive again."
            ) from None

    def mat(self, file: str) -> dict[str, Any]:
        """Return the variables of a MATLAB file; raise `BadInput` without SciPy, or for what is none."""
        try:
            from scipy.io import loadmat
            from scipy.io.matlab import MatReadError
        except ImportError:
            raise BadInput(
                f"{file} is a MATLAB file, and SciPy is not installed.",
                "Install it: pip install 'pleinair[evals]'",
            ) from None
        try:
            variables: dict[str, Any] = loadmat(str(self.folder / file), squeeze_me=True)
        except (MatReadError, ValueError, OSError, NotImplementedError, TypeError) as error:
            raise BadInput(
                f"{file} in {self.folder}: not a MATLAB file that is read: {error}.",
                "Unpack its archive again.",
            ) from None
        return variables

    def images(self, below: str) -> Iterator[str]:
        """Yield the paths of the images in a folder and all below it, sorted within each folder."""
        folders = []
        for entry in sorted(_entries(self.folder / below), key=lambda entry: entry.name):
            if entry.is_dir():
                folders.append(f"{below}{entry.name}/")
            elif is_image(entry.name) and entry.is_file():
                yield f"{below}{entry.name}"
        for folder in folders:
            if not _is_cycle(self.folder / folder):
                yield from self.images(folder)

    def present(self, paths: Iterable[str]) -> dict[str, str]:
        """Return those of the images that are there, each with its name on the disk.

        A name counts in another case or Unicode form, and with another usual ending (`.JPEG` for `.jpg`).
        """
        by_folder: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            by_folder[path.rpartition("/")[0]].append(path)
        present: dict[str, str] = {}
        for below, listed in by_folder.items():
            entries = _entries(self.folder / below)
            names = [entry.name for entry in entries if is_image(entry.name) and entry.is_file()]
            exact, stems = set(names), {_stem(name): name for name in names}
            for path in listed:
                name = path.rpartition("/")[2]
                name = name if name in exact else stems.get(_stem(name), "")
                if name:
                    present[path] = f"{below}/{name}" if below else name
        return present


class Faults:
    """Faults of lists, counted by kind, with the first of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, sample: object) -> None:
        """Count a fault."""
        self._counts[kind] += 1
        if len(self._first[kind]) < _SHOWN:
            self._first[kind].append(str(sample)[:100])

    def texts(self) -> tuple[str, ...]:
        """Return a text a kind, such as "images missing: 3 (a.jpg, b.jpg, c.jpg)"."""
        return tuple(
            f"{kind}: {count:,} ({', '.join(self._first[kind])}{', …' if count > _SHOWN else ''})"
            for kind, count in self._counts.items()
        )

    def __str__(self) -> str:
        return "; ".join(self.texts())


def is_image(name: str) -> bool:
    """Return whether a file's name has an image's ending."""
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def _stem(name: str) -> str:
    return normalize("NFC", os.path.splitext(name)[0]).lower()


def readable(name: str) -> str:
    """Return a name with blanks for underscores: "Black footed Albatross"."""
    return " ".join(name.replace("_", " ").split())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    except OSError:
        return []


def _is_cycle(folder: Path) -> bool:
    """Return whether a folder is a link to one that it is in."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _read(path: Path, limit: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.", "Make the file readable.") from None
