"""Index of a library's vectors with FAISS: build, open, check and search.

An index is a folder with `manifest.json`, one vectors file named by its content, and during a build a lock
and shards. Replacing the manifest replaces the index, so a killed build leaves the earlier one usable. Not
covered: indexes from strangers (build from the images), and a file that changes with its size and mtime
unchanged.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from pleinair.tools.callbacks import no_callback
from pleinair.tools.images.reading import BadPicture, read_bytes
from pleinair.tools.realrag import training_of
from pleinair.tools.retrieval.embedding import Embedded, embed_library, load_shards
from pleinair.tools.retrieval.faiss_index import find_nearest, on_gpu, read_vectors, write_vectors
from pleinair.tools.retrieval.library import Item, Library
from pleinair.tools.retrieval.manifest import (
    READING,
    REBUILD,
    File,
    Manifest,
    Skipped,
    digest_rows,
    encoder_of,
    load_manifest,
    save_manifest,
)
from pleinair.tools.retrieve import check_query
from pleinair.tools.storage.files import sweep_parts
from pleinair.tools.types import BadInput, Encoder, Hit, ModelFault, NoLibrary

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Vectors

_BATCH = 32  # images embedded at a time, and lost at most if a build is killed
_GPU_K = 2048  # the most neighbours that FAISS finds on a GPU


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


class Index:
    """Vectors of a library's images, memory-mapped, or on the GPU if FAISS finds one."""

    def __init__(self, manifest: Manifest, vectors: Any) -> None:
        self.manifest = manifest
        self.ids = tuple(file.id for file in manifest.files)
        self._rows = {id: row for row, id in enumerate(self.ids)}
        self._vectors = vectors
        self._gpu = on_gpu(vectors)
        self._lock = Lock() if self._gpu else nullcontext()  # on a GPU FAISS serves one thread at a time

    @classmethod
    def open(cls, folder: str | Path, encoder: Encoder) -> Index:
        """Check and open an index; raise `BadInput` if it is another encoder's, damaged or missing."""
        manifest = load_manifest(Path(folder))
        _require_encoder(manifest, encoder, f"The index in {folder}")
        vectors = read_vectors(Path(folder), manifest)
        if manifest.rows != digest_rows(manifest.sha256, manifest.files):
            raise BadInput(
                f"The manifest in {folder} does not list the images as they were indexed.", REBUILD
            )
        return cls(manifest, vectors)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Return the library files that are not usable images, with reasons."""
        return self.manifest.skipped

    @property
    def noted(self) -> tuple[File, ...]:
        """Return the indexed files that have notes."""
        return tuple(file for file in self.manifest.files if file.notes)

    def is_stale(self, library: Library) -> bool:
        """Return whether a file was added, removed or changed (size, mtime), or is read otherwise now."""
        if self.manifest.reading != READING or self.manifest.skips_less(library.max_pixels):
            return True
        return {item.id: item.stamp for item in library.items.values()} != self.manifest.stamps()

    def search(self, query: Vectors, k: int) -> list[tuple[str, float]]:
        """Return up to `k` ids with their product with `query` [1, dim], best first, ties by id."""
        if query.shape != (1, self.manifest.dim):
            raise BadInput(f"The query is {query.shape}, the index (1, {self.manifest.dim}).", REBUILD)
        size = min(2 * k, len(self))  # FAISS breaks ties arbitrarily: sort more to fill the last places
        searched = self._gpu[0] if self._gpu and size <= _GPU_K else self._vectors
        with self._lock:
            scores, rows = find_nearest(searched, query, size)
        most = max(1.0, float(np.linalg.norm(query)))  # rounding may exceed it
        cosines = np.clip(scores[0], -most, most).tolist()
        pairs = [(self.ids[row], cosine) for row, cosine in zip(rows[0], cosines, strict=True)]
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:k]

    def sha256(self, id: str) -> str:
        """Return the SHA-256 of an image's file; raise `KeyError` for one that is not indexed."""
        return self.manifest.files[self._rows[id]].sha256

    def vector(self, id: str) -> Vectors:
        """Return the vector of an image, [dim]; raise `KeyError` for one that is not indexed."""
        vector: Vectors = self._vectors.reconstruct(self._rows[id])
        return vector

    def nearest(self, k: int, size: int = 256) -> Iterator[list[list[tuple[str, float]]]]:
        """Yield for `size` images at a time, in their order, each one's `k` nearest others with cosines."""
        for start in range(0, len(self), size):
            count = min(size, len(self) - start)
            block = self._vectors.reconstruct_n(start, count)
            scores, rows = find_nearest(self._vectors, block, min(k + 1, len(self)))
            yield [
                [
                    (self.ids[row], float(score))
                    for row, score in zip(rows[place], scores[place], strict=True)
                    if row not in (start + place, -1)
                ][:k]
                for place in range(count)
            ]


class IndexRetriever:
    """Retriever of a library's images by the cosines of an encoder's vectors; copies are all found.

    Raise `BadInput` if the index is another encoder's or the library has changed since.
    """

    def __init__(self, library: Library, index: Index, encoder: Encoder) -> None:
        _require_encoder(index.manifest, encoder, "The index")
        if index.is_stale(library):
            raise BadInput(f"The library {library.title} has changed since it was indexed.", REBUILD)
        self._library, self._index, self.encoder = library, index, encoder
        self.training = training_of(encoder)

    def search(self, query: str, k: int) -> list[Hit]:
        """Search for up to `k` images, best first; raise `BadInput` for `k` under 1 or a blank query."""
        return self._hits(self._embed(query, k), k)

    def search_away(self, query: str, away: Image, weight: float, k: int) -> list[Hit]:
        """Search near a text and far from an image, as `ContrastRetriever` does; raise as `search`."""
        return self._hits(self._embed(query, k) - weight * self.encoder.encode_images([away]), k)

    def search_image(self, image: Image, k: int) -> list[Hit]:
        """Search for up to `k` images like another one; scores are cosines between images."""
        return self._hits(self.encoder.encode_images([image]), k)

    def search_like(self, id: str, k: int) -> list[Hit]:
        """Search for up to `k` other images like an indexed one; raise `KeyError` for one that is not."""
        hits = self._hits(self.vector(id)[None], k + 1)
        return [hit for hit in hits if hit.id != id][:k]

    def _embed(self, query: str, k: int) -> Vectors:
        check_query(query, k)
        vector = self.encoder.encode_text([query])
        if not np.isfinite(vector).all():
            raise ModelFault(f"Encoder `{self.encoder.id}` returned no finite vector for a query.")
        return vector

    def _hits(self, vector: Vectors, k: int) -> list[Hit]:
        pairs = self._index.search(vector, k)
        return [self._library.items[id].hit(score, "cosine") for id, score in pairs]

    def open(self, id: str) -> Image:
        """Read an image; raise `BadPicture` if its content is no longer the one that was indexed."""
        if not self._library.is_current(id):
            data = read_bytes(self._library.path(id))
            if hashlib.sha256(data).hexdigest() != self._index.sha256(id):
                raise BadPicture(f"`{id}` has changed since it was indexed.")
        return self._library.picture(id)

    def vector(self, id: str) -> Vectors:
        """Return the vector of an indexed image, [dim]; raise `KeyError` for any other."""
        return self._index.vector(id)

    def entries(self) -> list[Hit]:
        """List every indexed image in the library's order, with score 0."""
        return [self._library.items[id].hit() for id in self._index.ids]


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


def _require_encoder(manifest: Manifest, encoder: Encoder, what: str) -> None:
    if manifest.encoder != encoder.id:
        raise BadInput(f"{what} is of encoder `{manifest.encoder}`, not of `{encoder.id}`.", REBUILD)
