"""Search of very many vectors by an inverted file whose lists are on disk, refined by exact products.

The codes of the vectors (product quantization, a byte for `_CODED` numbers) lie in lists around the centres
of a sample. A query reads the codes of the `nprobe` lists whose centres are nearest, and compares the vectors
of the best candidates exactly, so that a score is a cosine. Both are read from disk.

The lists are built block by block, each in memory alone, and merged on disk. The numbers of candidates and of
lists to read are the least for which the ten best of held-out queries are complete to `WANTED`: half of these
are vectors of the library, half lie off them by `_FAR` of their length, as texts lie off images. What was
measured is in the manifest. Not covered: real queries further off, for which it may be less, and adding
vectors to the lists.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pleinair.tools.retrieval.exact_search import Selection, best_of, products_of, search_rows
from pleinair.tools.retrieval.manifest import REBUILD
from pleinair.tools.storage.files import explain, write_whole
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pleinair.tools.types import Vectors

    Rows = NDArray[np.int64]

WANTED = 0.99  # share of the ten best that held-out queries find
MEMORY = 2**30  # bytes of the vectors that training, and each block, have in memory
_CODED = 4  # numbers that a byte represents
_FOR_LIST = 40  # vectors of the sample for each list: with fewer FAISS warns
_QUERIES = 64  # of each kind, for the measurement
_FAR = 1.4  # length of what is added to the half of them: their cosine is 0.6
_CERTAIN = 10  # hits that are measured
CANDIDATES = 480, 1920, 7680  # compared exactly; of which the least that suffices is chosen
_FEW = 35_000  # selected rows; so many are compared in about 5 ms

_log = logging.getLogger(__name__)


class Lists(NamedTuple):
    """Lists on disk that are open for reading."""

    index: Any  # of FAISS
    candidates: int  # to compare exactly, for `_CERTAIN` hits


class Measured(NamedTuple):
    """What was chosen and measured when lists were written."""

    lists: str = ""  # name of the file of their index; "": none
    candidates: int = 0
    recall: float = 0.0  # share of the ten best that held-out queries find


def write_flat(folder: Path, vectors: Sequence[NDArray[np.float32]], dim: int) -> str:
    """Write vectors as FAISS's `IndexFlatIP` without holding them in memory; return the file's name.

    Raise `DiskFull` if they do not fit; nothing is left behind then.
    """
    faiss = _faiss()

    empty = faiss.IndexFlatIP(dim)
    empty.add(np.zeros((1, dim), np.float32))
    header = bytearray(faiss.serialize_index(empty)[: -4 * dim])
    # of one vector: its number, and at the end that of the floats
    header[8:16] = len(vectors).to_bytes(8, "little")
    header[-8:] = (len(vectors) * dim).to_bytes(8, "little")
    digest = hashlib.sha256(header)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".part", delete=False) as file:
            try:
                file.write(header)
                for _, block in _blocks(vectors, dim):
                    data = np.stack(block).tobytes()
                    digest.update(data)
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
                name = f"vectors-{digest.hexdigest()[:16]}.faiss"
                Path(file.name).replace(folder / name)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise explain(error, folder) from error
    return name


def write_lists(folder: Path, name: str, vectors: Any) -> Measured:
    """Write the lists of an `IndexFlatIP`, which is in `folder` under `name`, beside it.

    Return what was chosen and measured. Raise `DiskFull` if they do not fit.
    """
    from faiss.contrib.ondisk import merge_ondisk

    faiss = _faiss()
    index, of_lists = _trained(vectors), f"{Path(name).stem}.ivf"
    data = folder / lists_data(of_lists)
    data.unlink(missing_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".part") as place:
            parts = []
            for start, count in _ranges(vectors.ntotal, vectors.d):
                part = faiss.clone_index(index)
                part.add_with_ids(vectors.reconstruct_n(start, count), np.arange(start, start + count))
                parts.append(f"{place}/{start}")
                faiss.write_index(part, parts[-1])
            merge_ondisk(index, parts, str(data))
    except (OSError, RuntimeError) as error:
        raise explain(error if isinstance(error, OSError) else OSError(28, str(error)), folder) from error
    candidates, recall = _choose(index, vectors)
    write_whole(folder / of_lists, memoryview(faiss.serialize_index(index)))
    return Measured(of_lists, candidates, recall)


def lists_data(name: str) -> str:
    """Return the name of the file with the data of the lists whose index has a name."""
    return f"{Path(name).stem}.lists"


def read_lists(path: Path, count: int, dim: int, candidates: int) -> Lists:
    """Open lists on disk; raise `BadInput` if they are not of `count` vectors of `dim` numbers."""
    faiss = _faiss()

    try:
        # with IO_FLAG_ONDISK_SAME_DIR FAISS would print a line at each start
        index = faiss.read_index(str(path), faiss.IO_FLAG_SKIP_IVF_DATA | faiss.IO_FLAG_READ_ONLY)
        lists = faiss.downcast_InvertedLists(_ivf_of(index).invlists)
        lists.filename = str(path.with_name(lists_data(path.name)))
        lists.do_mmap()
    except (RuntimeError, MemoryError):
        raise BadInput(f"FAISS {faiss.__version__} cannot read {path}.", REBUILD) from None
    if (index.ntotal, index.d) != (count, dim):
        raise BadInput(f"{path} has other vectors than its manifest.", REBUILD)
    return Lists(index, candidates)


def search_lists(
    lists: Lists, exact: Any, queries: Vectors, k: int, selection: Selection | None = None
) -> tuple[Vectors, Rows]:
    """Return products and rows, each [n, k], of the best for queries [n, dim], best first.

    Args:
        lists: by `read_lists`.
        exact: the vectors, an `IndexFlatIP`.
        queries: float32, contiguous.
        k: hits; of a query for which the lists have fewer, more lists are read, all of them at last.
        selection: rows to which the search is limited; the last hits are rows -1 where it has fewer than `k`.
    """
    if selection and len(selection.rows) <= max(_FEW, k):
        return search_rows(exact, queries, k, selection.rows)
    index, ivf = lists.index, _ivf_of(lists.index)
    read = min(ivf.nlist, math.ceil(ivf.nprobe / selection.share) if selection else ivf.nprobe)
    size = min(lists.candidates * max(1, k // _CERTAIN), index.ntotal)
    while True:
        candidates = index.search(queries, size, params=_parameters(read, selection))[1]
        products = products_of(exact, queries, np.maximum(candidates, 0))
        products[candidates < 0] = -np.inf
        scores, rows = best_of(products, candidates, k)
        if read == ivf.nlist or (rows >= 0).all():
            return scores, rows
        read = min(ivf.nlist, 4 * read)


def _trained(vectors: Any) -> Any:
    """Return empty lists, trained on an even sample of the vectors."""
    faiss = _faiss()

    count, dim = vectors.ntotal, vectors.d
    lists = max(1, min(round(2 * math.sqrt(count)), MEMORY // (4 * dim * _FOR_LIST), count // _FOR_LIST))
    size = min(count, max(lists, 256) * _FOR_LIST)  # 256 codes are trained, too
    rows = np.linspace(0, count - 1, size).astype(np.int64)
    coded = -(-dim // _CODED)
    index = faiss.index_factory(dim, f"RR{coded * _CODED},IVF{lists},PQ{coded}np", faiss.METRIC_INNER_PRODUCT)
    _ivf_of(index).cp.seed = 0
    index.train(vectors.reconstruct_batch(rows))
    return index


def _choose(index: Any, vectors: Any) -> tuple[int, float]:
    """Set the number of lists to read, and return that of the candidates and the recall with both."""
    queries, ivf = _held_out(vectors), _ivf_of(index)
    truth = vectors.search(queries, min(_CERTAIN, vectors.ntotal))[1]

    def recall_of(candidates: int, read: int) -> float:
        ivf.nprobe = read
        rows = search_lists(Lists(index, candidates), vectors, queries, truth.shape[1])[1]
        return float(np.mean([np.isin(right, row).mean() for right, row in zip(truth, rows, strict=True)]))

    enough = (number for number in CANDIDATES if recall_of(number, ivf.nlist) >= WANTED)
    candidates = next(enough, max(CANDIDATES))
    reads = (2**power for power in range(ivf.nlist.bit_length()))
    read = next((number for number in reads if recall_of(candidates, number) >= WANTED), ivf.nlist)
    recall = recall_of(candidates, read)
    level = logging.INFO if recall >= WANTED else logging.WARNING
    text = "a search reads %d of %d lists, compares %d candidates and finds %.4f of the ten best"
    _log.log(level, text, read, ivf.nlist, candidates, recall)
    return candidates, recall


def _held_out(vectors: Any) -> Vectors:
    """Return vectors of random rows, and as many with a random direction added, as queries of length 1."""
    random = np.random.default_rng(0)
    rows: Vectors = vectors.reconstruct_batch(random.integers(0, vectors.ntotal, _QUERIES))
    noise = random.standard_normal(rows.shape).astype(np.float32)
    noise *= _FAR / np.linalg.norm(noise, axis=1, keepdims=True)
    queries: Vectors = np.concatenate([rows, rows + noise])
    queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-6)
    return queries


def _parameters(lists: int, selection: Selection | None) -> Any:
    """Return how many lists are read, and of which rows."""
    faiss = _faiss()

    options: dict[str, Any] = {"nprobe": lists}
    if selection:
        options["sel"] = faiss.IDSelectorBitmap(np.packbits(selection.mask, bitorder="little"))
    return faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(**options))


def _ivf_of(index: Any) -> Any:
    return _faiss().extract_index_ivf(index)


def _faiss() -> Any:
    """Import FAISS, whose own types are those of C++."""
    import faiss

    return faiss


def _ranges(count: int, dim: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the number of rows of each block that fits into the memory."""
    size = max(1, MEMORY // (4 * dim))
    return ((start, min(size, count - start)) for start in range(0, count, size))


def _blocks(vectors: Sequence[Any], dim: int) -> Iterator[tuple[int, Sequence[Any]]]:
    return ((start, vectors[start : start + count]) for start, count in _ranges(len(vectors), dim))
