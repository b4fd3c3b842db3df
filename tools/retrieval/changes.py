"""Whether a library has changed since its catalogue was written: in constant time, or exactly by a walk.

A folder's time changes when a file in it is added, removed, renamed or replaced; a file that is written in
place keeps its folder's time and changes its own. So the times of the folders are compared, and of the files
that readers have read, and of the images themselves, up to `CHECKED` of each. Not covered by that: in larger
libraries, images that are written in place; `find_changes` counts them, and an image that is used is compared
in any case; and images at URLs, of which only a new list notices changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from pleinair.tools import registry
from pleinair.tools.callbacks import no_callback
from pleinair.tools.retrieval.catalogue import VERSION, Catalogue, open_catalogue
from pleinair.tools.retrieval.containers.container import SUFFIXES
from pleinair.tools.retrieval.library import Library, Stamps
from pleinair.tools.retrieval.manifest import REBUILD, check_files, load_manifest
from pleinair.tools.retrieval.roots.addresses import is_url
from pleinair.tools.retrieval.roots.opening import Folders, addresses_of, by_prefix
from pleinair.tools.retrieval.walk import PAUSE, Walk
from pleinair.tools.storage.files import stamp_of, write_whole
from pleinair.tools.types import BadInput, PleinairError, Value

FILE = "stamps.json"  # beside the manifest
T = TypeVar("T")
CHECKED = 10_000  # folders, files and images
_SETTLED = 2 * 10**9  # nanoseconds after which a change has another time on any file system


class _Stored(Value):
    catalogue: str  # file name of the one that was current
    folders: dict[str, int]
    files: dict[str, tuple[int, int] | None]
    walked: int  # when the folders were walked through, nanoseconds since the epoch


class IndexAge(Value):
    """How old an index is, and whether a run notices every change of its library by itself."""

    images: int  # with a vector
    walked: float  # when the folders were walked through for it, seconds since the epoch; 0: not known
    compared: bool  # whether each image is compared when a run opens it; not above `CHECKED`, nor at URLs

    @property
    def summary(self) -> str:
        """Return the age in a few words."""
        when = (
            f"{datetime.fromtimestamp(self.walked, UTC):%Y-%m-%d %H:%M} UTC"
            if self.walked
            else "unknown date"
        )
        images = f"{self.images:,} image" if self.images == 1 else f"{self.images:,} images"
        compared = "compared by the run" if self.compared else "not compared one by one since"
        return f"index of {when}, {images}; {compared}"


class LibraryChanges(Value):
    """What differs between a library's folders and its catalogue, in files; a container is one file."""

    new: int = 0  # images
    changed: int = 0  # images and containers
    removed: int = 0
    texts: int = 0  # folders, tables and sidecars: captions may be others, or containers new
    emptied: str = ""  # address of a folder of which the catalogue has images and that has none
    mark: str = ""  # of these very changes: another one when a file differs from the last look

    def __bool__(self) -> bool:
        return bool(self.summary)

    @property
    def summary(self) -> str:
        """Return the changes in a few words, "" without any."""
        counts = {"new": self.new, "changed": self.changed, "removed": self.removed}
        parts = [f"{count:,} {word}" for word, count in counts.items() if count]
        return ", ".join(parts) or ("captions may have changed" if self.texts else "")


def save_stamps(folder: Path, catalogue: str, stamps: Stamps) -> None:
    """Write beside an index by what a change of its library is noticed; without room nothing is written."""
    latest = stamps.walked - _SETTLED
    folders = {path: mtime if mtime < latest else -1 for path, mtime in _first(stamps.folders).items()}
    stored = _Stored(catalogue=catalogue, folders=folders, files=_first(stamps.files), walked=stamps.walked)
    with suppress(PleinairError):  # the next run walks through the folders
        write_whole(folder / FILE, stored.model_dump_json().encode(), durable=False)


def age_of(folder: Path) -> IndexAge | None:
    """Return how old an index is, in constant time; None without a usable one."""
    if (catalogue := stored_catalogue(folder)) is None:
        return None
    stored = _stored(folder)
    walked = stored.walked / 1e9 if stored and stored.catalogue == catalogue.path.name else 0.0
    is_local = not any(map(is_url, catalogue.facts["folders"].values()))
    compared = is_local and bool(walked) and catalogue.count <= CHECKED
    return IndexAge(images=catalogue.facts["usable"], walked=walked, compared=compared)


def stored_catalogue(folder: Path) -> Catalogue | None:
    """Return the catalogue of an index, current or not, in constant time; None without a usable one."""
    with suppress(BadInput):
        manifest = load_manifest(folder)
        check_files(folder, manifest)
        catalogue = open_catalogue(folder / manifest.catalogue)
        return catalogue if catalogue.facts.get("version") == VERSION else None
    return None


def current_library(
    folder: Path,
    folders: Folders,
    *,
    readers: Sequence[str],
    cache: Path | None = None,
    captions: Path | None,
    max_pixels: int,
) -> Library | None:
    """Return the library from its catalogue beside an index, None where it is missing or may be outdated.

    The arguments are those of `Library.open`; raises `NoLibrary` for a folder that does not exist.
    """
    addresses = by_prefix(addresses_of(folders))
    catalogue = stored_catalogue(folder)
    stored = _stored(folder)
    if catalogue is None or stored is None or stored.catalogue != catalogue.path.name:
        return None
    facts = catalogue.facts
    is_same = facts["folders"] == addresses
    is_same &= facts["max_pixels"] == max_pixels and _reads_alike(facts["readers"], readers)
    if captions:
        stored.files.setdefault(str(captions), None)
    if not is_same or not _are_unchanged(stored):
        return None
    library = Library.of_catalogue(catalogue, cache)
    return library if _has_unchanged_images(library) else None


def _stored(folder: Path) -> _Stored | None:
    with suppress(OSError, ValidationError):
        return _Stored.model_validate_json((folder / FILE).read_bytes())
    return None


def _reads_alike(used: Sequence[str], wanted: Sequence[str]) -> bool:
    """Return whether a library was read by the wanted readers, all installed ones if there are none."""
    return list(wanted) == list(used) if wanted else set(registry.names("reader")) == set(used)


def _are_unchanged(stored: _Stored) -> bool:
    folders = all((stamp_of(path) or (0, 0))[1] == mtime for path, mtime in stored.folders.items())
    return folders and all(stamp_of(path) == stamp for path, stamp in stored.files.items())


def _has_unchanged_images(library: Library) -> bool:
    if len(library.items) > CHECKED:
        return True
    return all(library.is_current(item) for item in library.items.values() if library.is_local(item))


def _first(values: dict[str, T]) -> dict[str, T]:
    """Return the first `CHECKED` entries."""
    return dict(list(values.items())[:CHECKED])


def find_changes(
    folder: Path,
    folders: Folders,
    *,
    captions: Path | None = None,
    on_pause: Callable[[], None] = no_callback,
) -> LibraryChanges:
    """Walk through a library's folders on this machine and compare every file with its index.

    No file is opened but new ones without a usual ending, and memory does not grow with the metadata. Not
    covered: URLs; texts beside images that were written in place and keep their times.

    Args:
        folder: of the index.
        folders: of the library.
        captions: file of the captions that an MLLM has written.
        on_pause: called after every `PAUSE` files; may raise to stop.

    Raises:
        NoLibrary: a folder does not exist.
        BadInput: there is no index.
    """
    addresses = by_prefix(addresses_of(folders))
    catalogue, stored = stored_catalogue(folder), _stored(folder)
    if catalogue is None:
        raise BadInput(f"No index in {folder}.", REBUILD)
    if stored is None or stored.catalogue != catalogue.path.name:
        stored = _Stored(catalogue="", folders={}, files={}, walked=0)
    comparison = _Comparison(catalogue, stored)
    if captions:
        stored.files.setdefault(str(captions), None)
    roots = {prefix: Path(address) for prefix, address in addresses.items() if not is_url(address)}
    comparison.compare_folders({prefix: root for prefix, root in roots.items() if root.is_dir()}, on_pause)
    comparison.compare_files()
    return comparison.changes()


class _Comparison:
    """Counts of what differs between files and a catalogue."""

    def __init__(self, catalogue: Catalogue, stored: _Stored) -> None:
        self._catalogue, self._stored = catalogue, stored
        self._counts = dict.fromkeys(("new", "changed", "removed", "texts"), 0)
        self._emptied, self._mark = "", 0

    def changes(self) -> LibraryChanges:
        return LibraryChanges(**self._counts, emptied=self._emptied, mark=f"{self._mark:x}")

    def compare_folders(self, roots: dict[str, Path], on_pause: Callable[[], None]) -> None:
        """Compare the files below folders, by the beginnings of their ids."""
        prefixes = {root: prefix for prefix, root in roots.items()}
        walk, seen = Walk([*prefixes], on_pause), dict.fromkeys(prefixes, 0)
        for files in _in_chunks(walk.files()):
            ids = [f"{prefixes[root]}{path}" for root, path in files]
            indexed = self._catalogue.stamps_of(ids)
            for id, (root, path) in zip(ids, files, strict=True):
                if id in indexed:
                    seen[root] += 1
                self._compare(walk, root, path, indexed.get(id))
        for root, count in seen.items():
            indexed_count = self._catalogue.count_files(prefixes[root])
            self._add("removed", indexed_count - count, root)
            if indexed_count and not count:
                self._emptied = self._emptied or str(root)
        for listing in walk.listings.values():
            for path, mtime in listing.folders.items():
                before = self._stored.folders.get(path, mtime)
                self._add("texts", mtime != before if before >= 0 else self._is_later(mtime), path, mtime)

    def compare_files(self) -> None:
        """Compare the files that readers have read, and the containers."""
        for path, before in self._stored.files.items():
            stamp = stamp_of(path)
            if stamp != before:
                is_container = path.lower().endswith(SUFFIXES)
                kind = ("changed" if stamp else "removed") if is_container else "texts"
                self._add(kind, 1, path, stamp)

    def _compare(self, walk: Walk, root: Path, path: str, indexed: tuple[int, int] | None) -> None:
        full = os.path.join(root, path)
        stamp = None if full in self._stored.files else stamp_of(full)
        if stamp is None:  # compared by itself, or gone meanwhile
            return
        if indexed:
            self._add("changed", stamp != indexed, full, stamp)
        elif walk.may_be_image(root, path):
            self._add("new", 1, full, stamp)
        else:
            self._add("texts", self._is_later(stamp[1]), full, stamp)

    def _is_later(self, mtime: int) -> bool:
        """Return whether a time is after the walk that the catalogue is of."""
        return mtime > self._stored.walked > 0

    def _add(self, kind: str, count: int, *facts: object) -> None:
        if count:
            self._counts[kind] += count
            digest = blake2b(repr((kind, count, *facts)).encode(), digest_size=8).digest()
            self._mark = (self._mark + int.from_bytes(digest)) % 2**64


def _in_chunks(files: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(files)
    while chunk := list(islice(iterator, PAUSE)):
        yield chunk
