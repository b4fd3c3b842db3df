"""Index of a library's vectors with FAISS: build, open, check and search.

An index is a folder with `manifest.json`, one vectors file named by its content, and during a build a lock
and shards. Replacing the manifest replaces the index, so a killed build leaves the earlier one usable. Not
covered: indexes from strangers (build from the images), and a file that changes with its size and mtime
unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from pleinair.tools.retrieval.faiss_index import find_nearest, on_gpu, read_vectors
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.manifest import (
    READING,
    REBUILD,
    File,
    Manifest,
    Skipped,
    digest_rows,
    load_manifest,
)
from pleinair.tools.types import BadInput, Encoder

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

_GPU_K = 2048  # the most neighbours that FAISS finds on a GPU


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
        require_encoder(manifest, encoder, f"The index in {folder}")
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


def require_encoder(manifest: Manifest, encoder: Encoder, what: str) -> None:
    """Raise `BadInput` if an index, named by `what`, is of another encoder."""
    if manifest.encoder != encoder.id:
        raise BadInput(f"{what} is of encoder `{manifest.encoder}`, not of `{encoder.id}`.", REBUILD)
