"""Build or update the index of a library.

A build writes its batches to shards as soon as they are embedded, then the vectors, then the manifest that
refers to them, so that a killed build leaves the earlier index usable and loses one batch at most.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pleinair.tools.callbacks import no_callback
from pleinair.tools.retrieval.embedding import Embedded, embed_library, load_shards
from pleinair.tools.retrieval.faiss_index import write_vectors
from pleinair.tools.retrieval.index import Index
from pleinair.tools.retrieval.library import Item, Library
from pleinair.tools.retrieval.manifest import (
    READING,
    Manifest,
    Skipped,
    digest_rows,
    encoder_of,
    save_manifest,
)
from pleinair.tools.storage.files import sweep_parts
from pleinair.tools.types import BadInput, Encoder, NoLibrary

_BATCH = 32  # images embedded at a time, and lost at most if a build is killed


class BeingBuilt(BadInput):
    """An index is being built by another thread or process."""


def build_index(
    library: Library,
    encoder: Encoder,
    folder: str | Path,
    on_progress: Callable[[int, int], None] = no_callback,
    *,
    batch_size: int = _BATCH,
    others: Path | None = None,
) -> Index:
    """Update the index in `folder` to the library and open it.

    Only new and changed files are embedded, removed ones are dropped, and images that cannot be read are
    skipped and listed. Vectors of the same images are taken from the indexes below `others`, such as that of
    a library before it was moved. `on_progress(done, total)` counts images and may raise to stop. Raise
    `BeingBuilt` if another process builds this index, `NoLibrary` if no image is usable, `DiskFull` if the
    disk is; an earlier index stays.
    """
    folder = Path(folder)
    index = _open_usable(folder, encoder)
    if index and not index.is_stale(library) and all(file.sha256 for file in index.skipped):
        on_progress(len(library.items), len(library.items))
        return index
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            _update(library, encoder, folder, on_progress, batch_size, others)
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
) -> None:
    shards = folder / "shards"
    for place in (folder, shards):
        sweep_parts(place, older_than=0)  # the lock excludes other writers
    embedded = _embedded(_open_usable(folder, encoder), library.max_pixels)
    load_shards(shards, encoder.id, embedded)
    for other in _indexes(others, encoder) if others and any(_new_items(library, embedded)) else ():
        _take_over(other, library, embedded)
    embed_library(library, encoder, embedded, shards, batch_size=size, on_progress=on_progress)
    _commit(library, encoder, folder, embedded)
    shutil.rmtree(shards, ignore_errors=True)


def _open_usable(folder: Path, encoder: Encoder) -> Index | None:
    try:
        return Index.open(folder, encoder)
    except BadInput:  # none yet, or one that this build replaces
        return None


def _embedded(index: Index | None, max_pixels: int) -> Embedded:
    if index is None or index.manifest.reading != READING:
        return Embedded()
    skipped = () if index.manifest.skips_less(max_pixels) else index.skipped
    vectors = {file.sha256: index.vector(file.id) for file in index.manifest.files}
    return Embedded(vectors, {file.id: file for file in (*index.manifest.files, *skipped)})


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
    for file in other.manifest.files:
        if file.size in sizes and file.sha256 not in embedded.vectors:
            embedded.vectors[file.sha256] = other.vector(file.id)
        if file.id in new and file.stamp == new[file.id].stamp:
            embedded.files[file.id] = file


def _commit(library: Library, encoder: Encoder, folder: Path, embedded: Embedded) -> None:
    """Write the vectors, then the manifest that refers to them, then remove earlier vectors."""
    ordered = [embedded.files[id] for id in library.items]  # sorted by id
    skipped = tuple(file for file in ordered if isinstance(file, Skipped))
    files = tuple(file for file in ordered if not isinstance(file, Skipped))
    if not files:
        first = f"`{skipped[0].id}`: {skipped[0].reason}"
        raise NoLibrary(f"None of {len(skipped)} images in {library.title} can be used; {first}.")
    rows = [embedded.vectors[file.sha256] for file in files]
    name, digest = write_vectors(folder, rows, len(rows[0]))
    manifest = Manifest(
        encoder=encoder.id,
        dim=len(rows[0]),
        count=len(files),
        vectors=name,
        sha256=digest,
        rows=digest_rows(digest, files),
        files=files,
        skipped=skipped,
        reading=READING,
        max_pixels=library.max_pixels,
    )
    save_manifest(folder, manifest)
    for path in folder.glob("vectors-*.faiss"):
        if path.name != name:
            path.unlink(missing_ok=True)
