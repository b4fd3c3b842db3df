"""Search a library exactly by inner product with FAISS: build, open, check and ask.

An index is a folder with `manifest.json`, one vectors file named by its content, and while it is built a lock
and shards. Replacing the manifest is the moment of change, so a killed build leaves the old index usable. Not
covered: indexes from strangers (build from the pictures), and a file changed within its size and its mtime.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from pleinair.tools.realrag import training_of
from pleinair.tools.retrieval.embedding import Known, embed_library, load_shards
from pleinair.tools.retrieval.faiss_index import find_nearest, on_gpu, read_vectors, write_vectors
from pleinair.tools.retrieval.library import Item, Library
from pleinair.tools.retrieval.manifest import REBUILD, Manifest, Skipped, load_manifest, save_manifest
from pleinair.tools.retrieve import check_query
from pleinair.tools.storage.files import sweep_parts
from pleinair.tools.types import BadInput, Encoder, Hit, ModelFault

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Vectors

BATCH = 32  # pictures embedded at a time, and lost at most when a build is killed
GPU_K = 2048  # the most neighbours that FAISS finds on a GPU


class BeingBuilt(BadInput):
    """An index is being built by another thread or process."""


def _ignore_progress(done: int, total: int) -> None:
    """Take notice of progress and say nothing."""


def build_index(
    library: Library,
    encoder: Encoder,
    folder: str | Path,
    on_progress: Callable[[int, int], None] = _ignore_progress,
    *,
    batch_size: int = BATCH,
) -> Index:
    """Bring the index in `folder` up to date with the library and open it.

    Only new and changed files are embedded, removed ones are dropped, and pictures that cannot be read are
    skipped and listed. `on_progress(done, total)` counts pictures and may raise to stop. Raise `BeingBuilt`
    when somebody else builds here, `BadInput` when no picture is usable, `DiskFull` when the disk is; an old
    index stays.
    """
    folder = Path(folder)
    index = _existing(folder, encoder)
    if index and not index.is_stale(library) and all(file.sha256 for file in index.skipped):
        on_progress(len(library.items), len(library.items))
        return index
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            _update(library, encoder, folder, on_progress, batch_size)
    except Timeout:
        raise BeingBuilt(f"Another process is building the index in {folder}.", "Wait for it.") from None
    return Index.open(folder, encoder)


class Index:
    """Hold the vectors of a library's pictures, memory-mapped, or on the GPU where FAISS finds one."""

    def __init__(self, manifest: Manifest, vectors: Any) -> None:
        self.manifest = manifest
        self.ids = tuple(file.id for file in manifest.files)
        self._rows = {id: row for row, id in enumerate(self.ids)}
        self._vectors = vectors
        self._gpu = on_gpu(vectors)
        self._turn = Lock() if self._gpu else nullcontext()  # on a GPU FAISS serves one thread at a time

    @classmethod
    def open(cls, folder: str | Path, encoder: Encoder) -> Index:
        """Check and open an index; raise `BadInput` when it is another encoder's, damaged or not there."""
        manifest = load_manifest(Path(folder))
        if manifest.encoder != encoder.id:
            sides = f"of encoder `{manifest.encoder}`, wanted `{encoder.id}`"
            raise BadInput(f"The index in {folder} is {sides}", REBUILD)
        return cls(manifest, read_vectors(Path(folder), manifest))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """List the library files that are no usable pictures, with reasons."""
        return self.manifest.skipped

    def is_stale(self, library: Library) -> bool:
        """Tell whether a file was added, removed or changed (size, mtime) between the build and `library`."""
        now = {item.id: item.stamp for item in library.items.values()}
        return now != self.manifest.stamps()

    def search(self, query: Vectors, k: int) -> list[tuple[str, float]]:
        """Return up to `k` ids with their product with `query` [1, dim], best first, ties by id."""
        if query.shape != (1, self.manifest.dim):
            raise BadInput(f"The query is {query.shape}, the index (1, {self.manifest.dim})", REBUILD)
        asked = min(2 * k, len(self))  # FAISS decides ties by no rule of ours: the last places need company
        searcher = self._gpu[0] if self._gpu and asked <= GPU_K else self._vectors
        with self._turn:
            scores, rows = find_nearest(searcher, query, asked)
        most = max(1.0, float(np.linalg.norm(query)))  # rounding may go over it
        cosines = np.clip(scores[0], -most, most).tolist()
        found = [(self.ids[row], cosine) for row, cosine in zip(rows[0], cosines, strict=True)]
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))[:k]

    def vector(self, id: str) -> Vectors:
        """Return the vector of a picture, [dim]."""
        vector: Vectors = self._vectors.reconstruct(self._rows[id])
        return vector


class IndexRetriever:
    """Answer queries in words with a library's pictures; implements `Retriever`.

    Copies of a picture are all found; `Distinct` leaves them out. Raise `BadInput` when the index is another
    encoder's or the library has changed since.
    """

    def __init__(self, library: Library, index: Index, encoder: Encoder) -> None:
        if index.manifest.encoder != encoder.id:
            raise BadInput(f"Index of `{index.manifest.encoder}`, queries of `{encoder.id}`", REBUILD)
        if index.is_stale(library):
            raise _stale(library)
        self._library, self._index, self.encoder = library, index, encoder
        self.training = training_of(encoder)

    def search(self, query: str, k: int) -> list[Hit]:
        """Find up to `k` pictures, best first; raise `BadInput` for `k` under 1 or a blank query."""
        return self._hits(self._embed(query, k), k)

    def search_away(self, query: str, away: Image, weight: float, k: int) -> list[Hit]:
        """Find what is near a text and far from a picture: see `ContrastRetriever`; raise as `search`."""
        return self._hits(self._embed(query, k) - weight * self.encoder.encode_images([away]), k)

    def _embed(self, query: str, k: int) -> Vectors:
        check_query(query, k)
        vector = self.encoder.encode_text([query])
        if not np.isfinite(vector).all():
            raise ModelFault(f"Encoder `{self.encoder.id}` gave no finite vector for a query.")
        return vector

    def _hits(self, vector: Vectors, k: int) -> list[Hit]:
        return [self._library.items[id].hit(score) for id, score in self._index.search(vector, k)]

    def open(self, id: str) -> Image:
        """Read a picture; raise `BadInput` when its file is no longer the one that was indexed."""
        path, item = self._library.path(id), self._library.items[id]
        if not path.is_file() or Item.at(self._library.folder, id).stamp != item.stamp:
            raise _stale(self._library)
        return self._library.picture(id)

    def vector(self, id: str) -> Vectors:
        """Return the vector of an indexed picture, [dim]."""
        return self._index.vector(id)

    def entries(self) -> list[Hit]:
        """List every indexed picture in the library's order, with score 0."""
        return [self._library.items[id].hit(0.0) for id in self._index.ids]


def _update(
    library: Library, encoder: Encoder, folder: Path, on_progress: Callable[[int, int], None], size: int
) -> None:
    shards = folder / "shards"
    for place in (folder, shards):
        sweep_parts(place, older_than=0)  # no other writer: the lock is ours
    known = _known(_existing(folder, encoder))
    load_shards(shards, encoder.id, known)
    embed_library(library, encoder, known, shards, batch_size=size, on_progress=on_progress)
    _commit(library, encoder, folder, known)
    shutil.rmtree(shards, ignore_errors=True)


def _existing(folder: Path, encoder: Encoder) -> Index | None:
    try:
        return Index.open(folder, encoder)
    except BadInput:  # none yet, or one that this build replaces
        return None


def _known(old: Index | None) -> Known:
    if old is None:
        return Known()
    files = (*old.manifest.files, *old.skipped)
    vectors = {file.sha256: old.vector(file.id) for file in old.manifest.files}
    return Known(vectors, {file.id: file for file in files})


def _commit(library: Library, encoder: Encoder, folder: Path, known: Known) -> None:
    """Write the vectors, then the manifest that names them, then remove what nothing names any more."""
    looked_at = [known.files[id] for id in library.items]  # sorted by id
    skipped = tuple(file for file in looked_at if isinstance(file, Skipped))
    files = tuple(file for file in looked_at if not isinstance(file, Skipped))
    if not files:
        first = f"`{skipped[0].id}`: {skipped[0].reason}"
        raise BadInput(f"None of {len(skipped)} pictures in {library.folder} can be used; {first}.")
    rows = [known.vectors[file.sha256] for file in files]
    name, digest = write_vectors(folder, rows, len(rows[0]))
    manifest = Manifest(
        encoder=encoder.id,
        dim=len(rows[0]),
        count=len(files),
        vectors=name,
        sha256=digest,
        files=files,
        skipped=skipped,
    )
    save_manifest(folder, manifest)
    for path in folder.glob("vectors-*.faiss"):
        if path.name != name:
            path.unlink(missing_ok=True)


def _stale(library: Library) -> BadInput:
    return BadInput(f"The library {library.folder} has changed since it was indexed", REBUILD)
