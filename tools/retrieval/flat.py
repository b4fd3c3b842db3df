"""Keep vectors in FAISS's exact inner-product index: one file, mapped, copied to a GPU if there is one.

Not covered: approximate indexes, several GPUs, and files from strangers, which FAISS does not withstand; the
caller's checksum is compared before FAISS sees a byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from pleinair.tools.disk import write_whole
from pleinair.tools.retrieval.manifest import REBUILD, Manifest
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.types import Vectors

BLOCK = 65_536  # vectors handed to FAISS at a time


def write_vectors(folder: Path, vectors: Iterable[NDArray[np.float32]], dim: int) -> tuple[str, str]:
    """Write rows of `dim` numbers as an index named by its content; return its file name and its SHA-256."""
    faiss = load_faiss()
    index = faiss.IndexFlatIP(dim)
    rows = iter(vectors)
    while block := list(islice(rows, BLOCK)):
        index.add(np.stack(block))
    data = memoryview(faiss.serialize_index(index))
    digest = hashlib.sha256(data).hexdigest()
    name = f"vectors-{digest[:16]}.faiss"
    write_whole(folder / name, data)
    return name, digest


def read_vectors(folder: Path, manifest: Manifest) -> Any:
    """Map the vectors file that the manifest names; raise `BadInput` when it is not as the manifest says."""
    path = folder / manifest.vectors
    digest = _digest(path)
    if digest != manifest.sha256:
        raise BadInput(
            f"{path} has the checksum {digest[:16]}…, its manifest {manifest.sha256[:16]}…: {REBUILD}"
        )
    faiss = load_faiss()
    try:
        index = faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", 0))
    except (RuntimeError, MemoryError):
        raise BadInput(f"FAISS {faiss.__version__} cannot read {path}: {REBUILD}") from None
    have, want = (index.ntotal, index.d), (manifest.count, manifest.dim)
    if have != want:
        raise BadInput(f"{path} holds {have} (count, dim), its manifest says {want}: {REBUILD}")
    return index


def find_nearest(index: Any, query: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
    """Return scores and rows, each [1, k], of the `k` best for one query [1, dim], on one thread.

    With two threads FAISS took three times as long for one query: 100 ms against 32 ms for 60,000 rows of 512
    on two busy cores. The number is the calling thread's own and put back, as torch may share it.
    """
    faiss = load_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        scores, rows = index.search(np.ascontiguousarray(query, dtype=np.float32), k)
    finally:
        faiss.omp_set_num_threads(threads)
    return scores, rows


def on_gpu(index: Any) -> tuple[Any, Any] | None:
    """Copy an index to the first GPU and return it with what it needs there; None where FAISS sees none."""
    faiss = load_faiss()
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() < 1:
        return None
    resources = faiss.StandardGpuResources()
    return faiss.index_cpu_to_gpu(resources, 0, index), resources


def load_faiss() -> ModuleType:
    """Import FAISS, or say which extra brings it."""
    try:
        import faiss
    except ImportError:
        raise PleinairError(
            "FAISS is not installed: `pip install 'pleinair[cpu]'`, or `[gpu]` with CUDA 13."
        ) from None
    return faiss  # type: ignore[no-any-return, unused-ignore]


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"The vectors {path} cannot be read ({error.strerror}): {REBUILD}") from error
