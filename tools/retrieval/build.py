"""Build or update the index of a library.

A build writes its batches to shards as soon as they are embedded, then the vectors, then the manifest that
refers to them, so that a killed build leaves the earlier index usable and loses one batch at most.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, overload
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout

from pleinair.tools.callbacks import no_callback
from pleinair.tools.retrieval.caption_index import CaptionIndex
from pleinair.tools.retrieval.catalogue import check_vector, write_catalogue
from pleinair.tools.retrieval.disk_search import lists_data
from pleinair.tools.retrieval.embedding import embed_library
from pleinair.tools.retrieval.faiss_index import write_lists_of, write_vectors
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.manifest import (
    READING,
    File,
    Manifest,
    Skipped,
    check_of,
    digest_rows,
    encoder_of,
    save_manifest,
)
from pleinair.tools.retrieval.shards import ENDING, Embedded, load_shards
from pleinair.tools.storage.files import explain, sweep_parts
from pleinair.tools.types import BadInput, Encoder, NoLibrary

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 64  # images embedded at a time, and lost at most if a build is killed
SHARES = "shares"  # folder in that of an index, for shares of the library that other processes embed
_WORDS = 1  # raised when the words of the same captions are others
_OURS = re.compile(r"(vectors|catalogue|words)-[0-9a-f]{16}")


class Embed(Protocol):
    """What completes vectors as `embed_library` does: in this process, or on a cluster."""

    def __call__(
        self,
        library: Library,
        encoder: Encoder,
        embedded: Embedded,
        shards: Path,
        *,
        batch_size: int,
        on_progress: Callable[[int, int], None],
    ) -> None:
        """Complete `embedded`, and write shards into a folder."""


class BeingBuilt(BadInput):
    """An index is being built by another thread or process."""


def build_index(
    library: Library,
    encoder: Encoder,
    folder: str | Path,
    on_progress: Callable[[int, int], None] = no_callback,
    *,
    batch_size: int = BATCH,
    others: Path | None = None,
    joined: Embedded | None = None,
    embed: Embed | None = None,
) -> Index:
    """Update the index in `folder` to the library and open it.

    Only new and changed files are embedded, removed ones are dropped, and images that cannot be read are
    skipped and listed. Vectors of the same images are taken from the indexes below `others`, such as that of
    a library before it was moved, from `joined`, and from the shares in the index's folder, which are then
    removed. `embed` computes the missing vectors as `embed_library` does, which it is if omitted.
    `on_progress(done, total)` counts images and may raise to stop. Raise `BeingBuilt` if another process
    builds this index, `NoLibrary` if no image is usable, `DiskFull` if the disk is; an earlier index stays.
    """
    folder = Path(folder)
    index = _open_usable(folder, encoder)
    if (
        index
        and index.describes(library)
        and not index.is_stale(library)
        and all(file.sha256 for file in index.skipped)
    ):
        on_progress(len(library.items), len(library.items))
        return index
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            _update(library, encoder, folder, on_progress, batch_size, others, joined, embed or embed_library)
    except Timeout:
        raise BeingBuilt(f"Another process is building the index in {folder}.", "Wait for it.") from None
    return Index.open(folder, encoder)


def _update(
    library: Library,
    encoder: Encoder,
    folder: Path,
    on_progress: Callable[[int, int], None],
    size: int,
    others: Path | None,
    joined: Embedded | None,
    embed: Embed,
) -> None:
    shards = folder / "shards"
    for place in (folder, shards):
        sweep_parts(place, older_than=0)  # the lock excludes other writers
    earlier, shares = _open_usable(folder, encoder), list((folder / SHARES).glob(f"*{ENDING}"))
    embedded = stored_vectors(library, encoder, folder, joined)
    for other in _indexes(others, encoder) if others and any(_new_items(library, embedded)) else ():
        _take_over(other, library, embedded)
    embed(library, encoder, embedded, shards, batch_size=size, on_progress=on_progress)
    words = earlier.manifest.words if earlier else ""
    write_index(folder, library, encoder.id, embedded.files, embedded.vectors, words)
    shutil.rmtree(shards, ignore_errors=True)
    for path in shares:  # not the folder: another process may be writing into it
        path.unlink(missing_ok=True)


def stored_vectors(
    library: Library, encoder: Encoder, folder: Path, joined: Embedded | None = None
) -> Embedded:
    """Return what the index in a folder, the shares there and `joined` have of a library."""
    embedded = _embedded(_open_usable(folder, encoder), library.max_pixels)
    for place in ("shards", SHARES):
        embedded.join(load_shards(folder / place, encoder.id, library.max_pixels), library.items)
    if joined:
        embedded.join(joined, library.items)
    return embedded


def _open_usable(folder: Path, encoder: Encoder) -> Index | None:
    try:
        return Index.open(folder, encoder)
    except BadInput:  # none yet, or one that this build replaces
        return None


class _Vectors(MutableMapping[str, "NDArray[np.float32]"]):
    """Vectors by the SHA-256 of their files: new ones in memory, those of other indexes where they are."""

    def __init__(self) -> None:
        self._stored: dict[str, tuple[Index, int]] = {}
        self._new: dict[str, NDArray[np.float32]] = {}

    def add_stored(self, sha256: str, index: Index, row: int) -> None:
        """Add the vector in a row of an index."""
        self._stored[sha256] = index, row

    def __getitem__(self, sha256: str) -> NDArray[np.float32]:
        if sha256 in self._new:
            return self._new[sha256]
        index, row = self._stored[sha256]
        return index.vector_at(row)

    def __setitem__(self, sha256: str, vector: NDArray[np.float32]) -> None:
        self._new[sha256] = vector

    def __delitem__(self, sha256: str) -> None:
        del self._new[sha256]

    def __contains__(self, sha256: object) -> bool:
        return sha256 in self._new or sha256 in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._new.keys() | self._stored.keys())

    def __len__(self) -> int:
        return len(self._new.keys() | self._stored.keys())


class _Rows(Sequence["NDArray[np.float32]"]):
    """Vectors of files in the order of the rows."""

    def __init__(self, vectors: Mapping[str, NDArray[np.float32]], files: Sequence[File]) -> None:
        self._vectors, self._files = vectors, files

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, row: int) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, row: slice) -> list[NDArray[np.float32]]: ...
    def __getitem__(self, row: int | slice) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        if isinstance(row, slice):
            return [self._vectors[file.sha256] for file in self._files[row]]
        return self._vectors[self._files[row].sha256]


def _embedded(index: Index | None, max_pixels: int) -> Embedded:
    vectors = _Vectors()
    if index is None or index.manifest.reading != READING:
        return Embedded(vectors)
    skips_less, files, row = index.manifest.skips_less(max_pixels), dict[str, File](), 0
    for file in index.catalogue.files():
        if not isinstance(file, Skipped):
            vectors.add_stored(file.sha256, index, row)
            row += 1
        elif skips_less:
            continue
        files[file.id] = file
    return Embedded(vectors, files)


def _indexes(others: Path, encoder: Encoder) -> Iterator[Index]:
    """Yield the usable indexes of an encoder below a folder."""
    for folder in sorted(others.iterdir()) if others.is_dir() else ():
        index = _open_usable(folder, encoder) if encoder_of(folder) == encoder.id else None
        if index and index.manifest.reading == READING:
            yield index


def _new_items(library: Library, embedded: Embedded) -> Iterator[Item]:
    return (item for item in library.items.values() if embedded.file(item) is None)


def _take_over(other: Index, library: Library, embedded: Embedded) -> None:
    """Add the vectors of another index that images of the library may have, which their sizes tell."""
    new = {item.id: item for item in _new_items(library, embedded)}
    sizes = {item.size for item in new.values()}
    usable = (file for file in other.catalogue.files() if not isinstance(file, Skipped))
    for row, file in enumerate(usable):
        if file.size in sizes and file.sha256 not in embedded.vectors:
            embedded.vectors[file.sha256] = other.vector_at(row)
        if file.id in new and file.stamp == new[file.id].stamp:
            embedded.files[file.id] = file


def write_index(
    folder: Path,
    library: Library,
    encoder_id: str,
    files: Mapping[str, File],
    vectors: Mapping[str, NDArray[np.float32]],
    earlier_words: str = "",
) -> None:
    """Write the files of an index, then the manifest that names them, and remove those of the earlier one.

    Args:
        folder: of the index.
        library: whose items are in the order of their ids.
        encoder_id: of the encoder of the vectors.
        files: state of every item's file by its id, `Skipped` for one that is no usable image.
        vectors: by the SHA-256 of the file, float32 [dim] each.
        earlier_words: `Manifest.words` of a usable earlier index in the folder.

    Raises:
        NoLibrary: no file is a usable image.
        DiskFull: the files do not fit; the earlier index stays.
    """
    usable = _usable_files(library, files)
    rows = _Rows(vectors, usable)
    dim = len(rows[0])
    stored = write_vectors(folder, rows, dim)
    measured = write_lists_of(folder, stored, len(rows), dim)
    list_files = [measured.lists, lists_data(measured.lists)] if measured.lists else []
    vector_files = [stored, *list_files]
    words = _write_words(folder, [library.items[file.id].caption for file in usable], earlier_words)
    checks = {file.sha256: check_vector(rows[row]) for row, file in enumerate(usable)}
    catalogue, check = write_catalogue(folder, library.items.values(), files, checks, library.facts())
    of_vectors = {name: check_of(folder / name) for name in vector_files}
    word_files = sorted((folder / words).iterdir()) if words else []
    manifest = Manifest(
        encoder=encoder_id,
        dim=dim,
        count=len(usable),
        vectors=stored,
        catalogue=catalogue,
        words=words,
        files={
            **of_vectors,
            catalogue: check,
            **{f"{words}/{path.name}": check_of(path) for path in word_files},
        },
        checksum="",
        rows=digest_rows(of_vectors[stored].sha256, usable),
        library=library.digest,
        reading=READING,
        max_pixels=library.max_pixels,
        skipped=len(library.items) - len(usable),
        **measured._asdict(),
    )
    save_manifest(folder, manifest)
    _remove_earlier(folder, (*vector_files, catalogue, words))


def _usable_files(library: Library, files: Mapping[str, File]) -> list[File]:
    """Return the files of usable images, in the order of the items; raise `NoLibrary` if there are none."""
    usable = [file for id in library.items if not isinstance(file := files[id], Skipped)]
    if not usable:
        id = next(iter(library.items))
        first = getattr(files[id], "reason", "")
        raise NoLibrary(
            f"None of {len(library.items)} images in {library.title} can be used; `{id}`: {first}."
        )
    return usable


def _remove_earlier(folder: Path, present: Sequence[str]) -> None:
    """Remove the files and folders of earlier indexes, which are not among the present ones."""
    for path in folder.iterdir():
        if _OURS.match(path.name) and path.name not in present:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _write_words(folder: Path, captions: list[str], earlier: str) -> str:
    """Write the index of the captions' words into a folder named by them; return its name, or "".

    The folder of the earlier index is used again if the captions are the same.
    """
    name = f"words-{hashlib.sha256(repr((_WORDS, captions)).encode()).hexdigest()[:16]}"
    if name == earlier:
        return name
    index = CaptionIndex.build(captions)
    if index.index is None:
        return ""
    part = folder / f".{uuid4().hex}.part"
    try:
        index.save(part)
        for path in part.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(folder / name, ignore_errors=True)  # of an index that cannot be used
        part.replace(folder / name)
    except OSError as error:
        raise explain(error, folder) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return name
