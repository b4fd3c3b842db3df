"""Index of a library's vectors with FAISS: open, check and search.

An index is a folder with `manifest.json` and the files that it names: the vectors, the catalogue of the
images, the words of their captions; during a build also a lock and shards. Opening takes constant time: it
compares the beginnings of the files with their checksums, a search the vectors of the images that it returns,
and `verify_files` everything.
Not covered: indexes from strangers (build from the images), and a file that changes with its size and mtime
unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pleinair.tools.locks import Once
from pleinair.tools.retrieval.catalogue import Catalogue, Entries, check_vector, open_catalogue
from pleinair.tools.retrieval.disk_search import Lists, read_lists
from pleinair.tools.retrieval.exact_search import Selection
from pleinair.tools.retrieval.faiss_index import GPU_K, GPU_MEMORY, find_nearest, on_gpu, read_vectors
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.manifest import (
    READING,
    REBUILD,
    File,
    Manifest,
    Skipped,
    check_files,
    load_manifest,
)
from pleinair.tools.types import BadInput, Encoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.retrieval.pgvector import PgVectors
    from pleinair.tools.types import Vectors


class Index:
    """Vectors of a library's images, memory-mapped when first used, or on the GPU if FAISS finds one."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        catalogue: Catalogue,
        opened: Callable[[Manifest], _Opened | PgVectors] | None = None,
    ) -> None:
        """Store the folder and its files; `opened` opens vectors that are elsewhere."""
        self.folder, self.manifest, self.catalogue = folder, manifest, catalogue
        self.gpu_memory = GPU_MEMORY  # GiB that the vectors may take on a GPU; read when they are first used
        self._opened = Once(
            lambda: opened(manifest) if opened else _Opened(folder, manifest, self.gpu_memory)
        )

    @classmethod
    def open(
        cls,
        folder: str | Path,
        encoder: Encoder,
        opened: Callable[[Manifest], PgVectors] | None = None,
    ) -> Index:
        """Open an index in constant time; raise `BadInput` if it is another encoder's, damaged or missing.

        `opened` opens vectors that are not in the folder, when they are first used.
        """
        folder = Path(folder)
        manifest = load_manifest(folder)
        require_encoder(manifest, encoder, f"The index in {folder}")
        try:
            check_files(folder, manifest)
            catalogue = open_catalogue(folder / manifest.catalogue)
        except BadInput:
            if load_manifest(folder) == manifest:
                raise
            return cls.open(folder, encoder, opened)  # another process has replaced it meanwhile
        if (catalogue.facts["usable"], catalogue.facts["digest"]) != (manifest.count, manifest.library):
            raise BadInput(f"The catalogue in {folder} is not the one that its manifest describes.", REBUILD)
        return cls(folder, manifest, catalogue, opened)

    def __len__(self) -> int:
        return self.manifest.count

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Return the ids of all images with a vector, in the order of the rows."""
        return tuple(self.catalogue.rows("id"))

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Return the library files that are not usable images, with reasons."""
        return self.catalogue.skipped()

    @property
    def noted(self) -> tuple[File, ...]:
        """Return the indexed files that have notes."""
        return self.catalogue.noted()

    @cached_property
    def entries(self) -> Entries:
        """Return the images with a vector as hits, with the index of their captions."""
        words = self.manifest.words
        return Entries(self.catalogue, self.catalogue.captions(self.folder / words) if words else None)

    def is_stale(self, library: Library) -> bool:
        """Return whether a file was added, removed or changed (size, mtime), or is read otherwise now.

        Of a library that was opened from a catalogue with the same contents this takes constant time.
        """
        if self.manifest.reading != READING or self.manifest.skips_less(library.max_pixels):
            return True
        if self.describes(library):
            return False
        return {item.id: item.stamp for item in library.items.values()} != self.catalogue.stamps()

    def describes(self, library: Library) -> bool:
        """Return whether the catalogue has a library's images with their present metadata."""
        return self.manifest.library == library.digest

    def search(
        self, queries: Vectors, k: int, selection: Selection | None = None
    ) -> list[list[tuple[str, float]]]:
        """Return up to `k` ids with their products for each of `queries` [n, dim], best first, ties by id.

        With a `selection` its rows alone are searched. Raise `BadInput` if the stored vector of one of them
        is damaged.
        """
        if queries.ndim != 2 or queries.shape[1] != self.manifest.dim:
            raise BadInput(f"The queries are {queries.shape}, the index (n, {self.manifest.dim}).", REBUILD)
        count = len(self) if selection is None else len(selection.rows)
        size = min(2 * k, count)  # FAISS breaks ties arbitrarily: sort more to fill the last places
        if not size:
            return [[] for _ in queries]
        scores, rows = self._opened().search(queries, size, selection)
        most = np.maximum(1, np.linalg.norm(queries, axis=1, keepdims=True))  # rounding may exceed it
        cosines = np.clip(scores, -most, most)
        return [self._ranking(*pair)[:k] for pair in zip(rows.tolist(), cosines.tolist(), strict=True)]

    def _ranking(self, rows: Sequence[int], cosines: Sequence[float]) -> list[tuple[str, float]]:
        ids = self._checked(rows)
        pairs = [(ids[row], cosine) for row, cosine in zip(rows, cosines, strict=True) if row >= 0]
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))

    def sha256(self, id: str) -> str:
        """Return the SHA-256 of an image's file; raise `KeyError` for one that is not indexed."""
        return str(self.catalogue.at([self.catalogue.row(id)], "sha256").popitem()[1][0])

    def vector(self, id: str) -> Vectors:
        """Return the vector of an image, [dim]; raise `KeyError` for one that is not indexed."""
        return self.vector_at(self.catalogue.row(id))

    def vector_at(self, row: int) -> Vectors:
        """Return the vector of a row, [dim]."""
        vector: Vectors = self._opened().vectors.reconstruct(row)
        return vector

    def nearest(self, k: int, size: int = 256) -> Iterator[list[list[tuple[str, float]]]]:
        """Yield for `size` images at a time, in their order, each one's `k` nearest others with cosines."""
        vectors, lists = self._opened().vectors, getattr(self._opened(), "lists", None)
        for start in range(0, len(self), size):
            count = min(size, len(self) - start)
            block = vectors.reconstruct_n(start, count)
            scores, rows = find_nearest(vectors, block, min(k + 1, len(self)), complete=False, lists=lists)
            yield [
                [
                    (self.ids[row], float(score))
                    for row, score in zip(rows[place], scores[place], strict=True)
                    if row not in (start + place, -1)
                ][:k]
                for place in range(count)
            ]

    def _checked(self, rows: Sequence[int]) -> dict[int, str]:
        """Return the ids of rows; raise `BadInput` if a vector is not the one that was stored."""
        records = self.catalogue.at([row for row in rows if row >= 0], "id, crc")
        for row, (id, crc) in records.items():
            if check_vector(self.vector_at(row)) != crc:
                raise BadInput(f"The vector of `{id}` in {self.folder} is damaged.", REBUILD)
        return {row: id for row, (id, _) in records.items()}


class _Opened:
    """Vectors of an index, their lists on disk if there are any, and their copy on a GPU."""

    def __init__(self, folder: Path, manifest: Manifest, gpu_memory: float) -> None:
        self.vectors = read_vectors(folder / manifest.vectors, manifest.count, manifest.dim)
        self.lists: Lists | None = None
        if manifest.lists:
            path = folder / manifest.lists
            self.lists = read_lists(path, manifest.count, manifest.dim, manifest.candidates)
        self._gpu = on_gpu(self.vectors, gpu_memory) if gpu_memory else None

    def search(
        self, queries: Vectors, k: int, selection: Selection | None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Return scores and rows, each [n, k], of the `k` best for queries [n, dim]."""
        if self._gpu and k <= GPU_K and selection is None:
            return self._gpu.search(queries, k)
        return find_nearest(self.vectors, queries, k, selection=selection, lists=self.lists)


def require_encoder(manifest: Manifest, encoder: Encoder, what: str) -> None:
    """Raise `BadInput` if an index, named by `what`, is of another encoder."""
    if manifest.encoder != encoder.id:
        raise BadInput(f"{what} is of encoder `{manifest.encoder}`, not of `{encoder.id}`.", REBUILD)
