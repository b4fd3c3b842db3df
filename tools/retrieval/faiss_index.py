"""Vectors in a FAISS inner-product index: one memory-mapped file, copied to a GPU if there is one with room.

Under `EXACT_BELOW` vectors the search is exact. From there on 4-bit product codes choose candidates, which
are then compared exactly, so that a score is a cosine either way; see `coded_search`. From `LISTS_FROM`
vectors on an inverted file on disk chooses them; see `disk_search`. On a GPU all vectors
are compared in float16, and the best of them again exactly; that branch was tested with a replacement of the
GPU and never on one. A search of selected rows takes place on the CPU. Not covered: several GPUs, and files
from strangers, which FAISS does not withstand; the caller compares sizes and checksums before FAISS reads a
byte.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from pleinair.tools.retrieval.coded_search import empty_coded_index, search_codes
from pleinair.tools.retrieval.disk_search import Lists, Measured, search_lists, write_flat, write_lists
from pleinair.tools.retrieval.exact_search import Selection, best_of, exact_of, products_of, search_rows
from pleinair.tools.retrieval.manifest import REBUILD
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.types import Vectors

EXACT_BELOW = 100_000  # vectors; exact search takes some 7 ms for so many of 512 numbers
LISTS_FROM = 10_000_000  # vectors; scanning all codes takes some 55 ms for so many
_BLOCK = 65_536  # vectors passed to FAISS at a time
_MOST_REFINED = 256  # hits; for more of them exact search is faster
GPU_MEMORY = 2.0  # GiB of a GPU that the vectors may take
GPU_K = 2048  # the most neighbours that FAISS finds on a GPU
_GPU_MARGIN = 16  # neighbours beyond those asked for
_GPU_SCRATCH = 256 * 2**20  # bytes on the GPU for FAISS's own use

_log = logging.getLogger(__name__)


def write_vectors(folder: Path, vectors: Sequence[NDArray[np.float32]], dim: int) -> str:
    """Write rows of `dim` numbers as an index named by its content, and return its file name."""
    faiss = load_faiss()
    if len(vectors) >= LISTS_FROM:
        return write_flat(folder, vectors, dim)
    index = _empty_index(vectors, dim)
    for start in range(0, len(vectors), _BLOCK):
        index.add(np.stack(vectors[start : start + _BLOCK]))
    data = memoryview(faiss.serialize_index(index))
    name = f"vectors-{hashlib.sha256(data).hexdigest()[:16]}.faiss"
    write_whole(folder / name, data)
    return name


def _empty_index(vectors: Sequence[NDArray[np.float32]], dim: int) -> Any:
    """Create an index for vectors; for many of them train its codes on an even sample."""
    if len(vectors) < EXACT_BELOW:
        return load_faiss().IndexFlatIP(dim)
    return empty_coded_index(np.stack(vectors[:: -(-len(vectors) // _BLOCK)]))


def write_lists_of(folder: Path, name: str, count: int, dim: int) -> Measured:
    """Write the lists of many vectors in a file as `write_lists` does; none where there are few."""
    if count < LISTS_FROM:
        return Measured()
    return write_lists(folder, name, read_vectors(folder / name, count, dim))


def read_vectors(path: Path, count: int, dim: int) -> Any:
    """Map a file of `count` vectors of `dim` numbers into memory; raise `BadInput` if it is another."""
    faiss = load_faiss()
    try:
        index = faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", 0))
    except (RuntimeError, MemoryError):
        raise BadInput(f"FAISS {faiss.__version__} cannot read {path}.", REBUILD) from None
    shape, expected = (index.ntotal, index.d), (count, dim)
    if shape != expected:
        raise BadInput(f"{path} has (count, dim) {shape}, its manifest {expected}.", REBUILD)
    return index


def find_nearest(
    index: Any,
    queries: Vectors,
    k: int,
    *,
    complete: bool = True,
    selection: Selection | None = None,
    lists: Lists | None = None,
) -> tuple[Vectors, NDArray[np.int64]]:
    """Return scores and rows, each [n, k], of the `k` best for queries [n, dim], on one thread.

    `complete` and `selection` are those of `search_codes`, `lists` those of the index on disk.

    With two threads FAISS took three times as long for one query: 100 ms against 32 ms for 60,000 rows of 512
    on two busy cores. The number is the calling thread's own and is restored, as torch may share it.
    """
    faiss = load_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    try:
        if hasattr(index, "refine_index") and k <= _MOST_REFINED:
            return search_codes(index, queries, k, complete=complete, selection=selection)
        if lists is not None and k <= _MOST_REFINED:
            return search_lists(lists, index, queries, k, selection)
        if selection:
            return search_rows(exact_of(index), queries, k, selection.rows)
        scores, rows = exact_of(index).search(queries, k)
        return scores, rows
    finally:
        faiss.omp_set_num_threads(threads)


class GpuIndex:
    """Copy of an index on the first GPU in float16; threads may share it. The scores are exact."""

    def __init__(self, index: Any) -> None:
        """Copy an index of FAISS; raise FAISS's `RuntimeError` where it does not fit."""
        faiss = load_faiss()
        self._index, self._exact = index, exact_of(index)  # the latter is part of the former
        self._lock = Lock()  # on a GPU FAISS serves one thread at a time
        self._resources = faiss.StandardGpuResources()
        self._resources.setTempMemory(_GPU_SCRATCH)
        options = faiss.GpuClonerOptions()
        options.useFloat16 = True
        self._copy = faiss.index_cpu_to_gpu(self._resources, 0, self._exact, options)

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Return scores and rows, each [n, k], of the `k` best, `GPU_K` at most, for queries [n, dim]."""
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        size = min(k + _GPU_MARGIN, GPU_K, self._exact.ntotal)  # rounding may change the order of the last
        with self._lock:
            rows = self._copy.search(queries, size)[1]
        return best_of(products_of(self._exact, queries, rows), rows, k)


def on_gpu(index: Any, budget: float) -> GpuIndex | None:
    """Return a copy of an index on the first GPU; None without one, or where it takes over `budget` GiB."""
    faiss = load_faiss()
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() < 1:
        return None
    needed = (2 * index.ntotal * index.d + _GPU_SCRATCH) / 2**30
    if needed > budget:
        _log.warning("the vectors stay on the CPU: on the GPU they take %.2f of %.2f GiB", needed, budget)
        return None
    return GpuIndex(index)


def load_faiss() -> ModuleType:
    """Import FAISS; raise `PleinairError` if it is not installed."""
    try:
        import faiss
    except ImportError:
        remedy = "`pip install 'pleinair[cpu]'`, or `[gpu]` with CUDA 13."
        raise PleinairError("FAISS is not installed.", remedy) from None
    return faiss  # type: ignore[no-any-return, unused-ignore]
