"""Whether a library has changed since its catalogue was written, in constant time.

A folder's time changes when a file in it is added, removed, renamed or replaced; a file that is written in
place keeps its folder's time and changes its own. So the times of the folders are compared, and of the files
that readers have read, and of the images themselves, up to `CHECKED` of each. Not covered: in larger
libraries, images that are written in place; a walk notices them, as `pleinair index` makes, and an image that
is used is compared in any case; and images at URLs, of which only a walk notices changes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from pleinair.tools import registry
from pleinair.tools.retrieval.catalogue import open_catalogue
from pleinair.tools.retrieval.library import Library, Stamps
from pleinair.tools.retrieval.manifest import check_files, load_manifest
from pleinair.tools.retrieval.roots.opening import Folders, addresses_of, by_prefix
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


def save_stamps(folder: Path, catalogue: str, stamps: Stamps) -> None:
    """Write beside an index by what a change of its library is noticed; without room nothing is written."""
    latest = time.time_ns() - _SETTLED
    folders = {path: mtime if mtime < latest else -1 for path, mtime in _first(stamps.folders).items()}
    stored = _Stored(catalogue=catalogue, folders=folders, files=_first(stamps.files))
    with suppress(PleinairError):  # the next run walks through the folders
        write_whole(folder / FILE, stored.model_dump_json().encode(), durable=False)


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
    try:
        manifest = load_manifest(folder)
        check_files(folder, manifest)
        stored = _Stored.model_validate_json((folder / FILE).read_bytes())
        if stored.catalogue != manifest.catalogue:
            return None
        catalogue = open_catalogue(folder / manifest.catalogue)
    except (BadInput, OSError, ValidationError):
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
