"""Vectors in a FAISS inner-product index: one memory-mapped file, copied to a GPU if there is one.

Under `EXACT_BELOW` vectors the search is exact. From there on 4-bit product codes choose candidates, which
are then compared exactly, so that a score is a cosine either way; see `coded_search`. On a GPU the
search is exact at any size; that branch was tested with a replacement of the GPU and never on one. Not
covered: several GPUs, and files from strangers, which FAISS does not withstand; the caller compares sizes and
checksums before FAISS reads a byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from pleinair.tools.retrieval.coded_search import search_codes
from pleinair.tools.retrieval.manifest import REBUILD
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.types import Vectors

EXACT_BELOW = 100_000  # vectors; exact search takes some 7 ms for so many of 512 numbers
_CODED = 4  # numbers that a code represents
_BLOCK = 65_536  # vectors passed to FAISS at a time
_MOST_REFINED = 256  # hits; for more of them exact search is faster


def write_vectors(folder: Path, vectors: Sequence[NDArray[np.float32]], dim: int) -> str:
    """Write rows of `dim` numbers as an index named by its content, and return its file name."""
    faiss = load_faiss()
    index = _empty_index(vectors, dim)
    for start in range(0, len(vectors), _BLOCK):
        index.add(np.stack(vectors[start : start + _BLOCK]))
    data = memoryview(faiss.serialize_index(index))
    name = f"vectors-{hashlib.sha256(data).hexdigest()[:16]}.faiss"
    write_whole(folder / name, data)
    return name


def _empty_index(vectors: Sequence[NDArray[np.float32]], dim: int) -> Any:
    """Create an index for vectors; for many of them train its codes on an even sample."""
    faiss = load_faiss()
    if len(vectors) < EXACT_BELOW or dim % _CODED:
        return faiss.IndexFlatIP(dim)
    index = faiss.index_factory(dim, f"PQ{dim // _CODED}x4fs,RFlat", faiss.METRIC_INNER_PRODUCT)
    index.train(np.stack(vectors[:: -(-len(vectors) // _BLOCK)]))
    return index


def exact(index: Any) -> Any:
    """Return the exact index inside one with codes, else the index itself."""
    inner = getattr(index, "refine_index", None)
    return index if inner is None else load_faiss().downcast_index(inner)


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
    index: Any, queries: Vectors, k: int, *, complete: bool = True
) -> tuple[Vectors, NDArray[np.int64]]:
    """Return scores and rows, each [n, k], of the `k` best for queries [n, dim], on one thread.

    `complete` is that of `search_codes`.

    With two threads FAISS took three times as long for one query: 100 ms against 32 ms for 60,000 rows of 512
    on two busy cores. The number is the calling thread's own and is restored, as torch may share it.
    """
    faiss = load_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    try:
        if hasattr(index, "refine_index") and k <= _MOST_REFINED:
            return search_codes(index, queries, k, complete=complete)
        scores, rows = exact(index).search(queries, k)
        return scores, rows
    finally:
        faiss.omp_set_num_threads(threads)


def on_gpu(index: Any) -> tuple[Any, Any] | None:
    """Copy the exact index to the first GPU and return it with its resources; return None without a GPU."""
    faiss = load_faiss()
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() < 1:
        return None
    resources = faiss.StandardGpuResources()
    return faiss.index_cpu_to_gpu(resources, 0, exact(index)), resources


def load_faiss() -> ModuleType:
    """Import FAISS; raise `PleinairError` if it is not installed."""
    try:
        import faiss
    except ImportError:
        remedy = "`pip install 'pleinair[cpu]'`, or `[gpu]` with CUDA 13."
        raise PleinairError("FAISS is not installed.", remedy) from None
    return faiss  # type: ignore[no-any-return, unused-ignore]
