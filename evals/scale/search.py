"""Benchmark `search`: an index of many vectors against FAISS's exact one, on one core, alone and in batches.

Synthetic vectors: clusters of very different sizes (Zipf, exponent 1.3), noise as long as the centre; queries
lie 1.5 times as far from a centre, on the other side of a gap as between texts and images. A dense cluster is
harder than that: `own` are queries made of the library's own vectors with the same gap. Figures are CPU time
of the thread, the best of several, both sides in turns. Not covered: real embeddings.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import thread_time
from typing import TYPE_CHECKING, Any

import numpy as np

from pleinair.evals.scale.command import write_figures
from pleinair.tools.retrieval.exact_search import Selection, exact_of
from pleinair.tools.retrieval.faiss_index import find_nearest, read_vectors, write_vectors

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

DIM, CLUSTERS, K, BATCH = 512, 2000, 10, 32
_QUERIES = 256
_OWN = 64
_SearchOne = Callable[[Any], Any]
_TIMES = ("flat_1_ms", "ours_1_ms", "flat_32_ms", "ours_32_ms", "filtered_flat_ms", "filtered_ms")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 350_000])
    parser.add_argument("--seed", type=int, default=0, help="of the vectors; the queries' is one more")
    parser.add_argument("--repeats", type=int, default=6, help="of each time, of which the best counts")


def run(options: argparse.Namespace) -> None:
    """Print a row a size: milliseconds of a query and of a batch, ratios, and the recall of the ten best.

    `fifth` is the ratio of a query among a fifth of the vectors, to the flat index with a selector of them.
    """
    rows = []
    names = (
        "flat 1",
        "ours 1",
        "ratio",
        "flat 32",
        "ours 32",
        "ratio",
        "R@10",
        "own R@10",
        "fifth",
        "R@10",
    )
    print(f"{'vectors':>9}", *(f"{name:>8}" for name in names), sep=" ")
    for size in options.sizes:
        row = _measure(size, options.seed, options.repeats)
        rows.append(row)
        columns = ("flat_1_ms", "ours_1_ms", "ratio_1", "flat_32_ms", "ours_32_ms", "ratio_32")
        figures = [*(f"{row[name]:>8.2f}" for name in columns), f"{row['recall']:>8.4f}"]
        figures += [f"{row['recall_own']:>8.4f}", f"{row['ratio_filtered']:>8.2f}"]
        print(f"{size:>9}", *figures, f"{row['recall_filtered']:>8.4f}", flush=True)
    write_figures(options.json, {"seed": options.seed, "repeats": options.repeats, "sizes": rows})


def make_vectors(count: int, seed: int) -> tuple[Vectors, Vectors]:
    """Return unit vectors [count, 512] in clusters, and the clusters' centres [2000, 512], float32."""
    rng = np.random.default_rng(seed)
    centres = _unit(rng.standard_normal((CLUSTERS, DIM), dtype=np.float32))
    clusters = rng.zipf(1.3, size=count) % CLUSTERS
    vectors = np.empty((count, DIM), np.float32)
    for start in range(0, count, 50_000):
        part = clusters[start : start + 50_000]
        noise = rng.standard_normal((len(part), DIM), dtype=np.float32) / np.float32(np.sqrt(DIM))
        vectors[start : start + len(part)] = _unit(centres[part] + noise)
    return vectors, centres


def make_queries(around: Vectors, seed: int, noise: float = 1.5) -> Vectors:
    """Return unit vectors near others, all moved by the same gap of length 1, float32."""
    rng = np.random.default_rng(seed)
    gap = _unit(rng.standard_normal((1, DIM), dtype=np.float32))
    off = rng.standard_normal(around.shape, dtype=np.float32) * np.float32(noise / np.sqrt(DIM))
    return _unit(around + gap + off)


def make_case(size: int, seed: int, queries: int, own: int) -> tuple[Vectors, Vectors, Vectors]:
    """Return `size` vectors, `queries` near centres of clusters, and `own` near vectors of the index."""
    vectors, centres = make_vectors(size, seed)
    rng = np.random.default_rng(seed + 1)
    near_centres = make_queries(centres[rng.integers(0, CLUSTERS, queries)], seed + 1)
    return vectors, near_centres, make_queries(vectors[rng.integers(0, size, own)], seed + 2)


def _unit(rows: Vectors) -> Vectors:
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _measure(size: int, seed: int, repeats: int) -> dict[str, Any]:
    import faiss

    vectors, queries, own = make_case(size, seed, _QUERIES, _OWN)
    with TemporaryDirectory() as folder:
        index = read_vectors(Path(folder) / write_vectors(Path(folder), list(vectors), DIM), size, DIM)
        del vectors  # the index has a copy
        flat = exact_of(index)
        faiss.omp_set_num_threads(1)
        selection = Selection(np.sort(np.random.default_rng(seed + 3).permutation(size)[: size // 5]), size)
        untyped: Any = faiss  # its stubs have neither argument
        bits = untyped.IDSelectorBitmap(np.packbits(selection.mask, bitorder="little"))
        parameters = untyped.SearchParameters(sel=bits)

        def filtered_flat(queries: Vectors) -> Any:
            return flat.search(queries, K, params=parameters)

        def filtered(queries: Vectors) -> Any:
            return find_nearest(index, queries, K, selection=selection)

        times = [
            _best(lambda: [flat.search(query[None], K) for query in queries[:4]], 4),
            _best(lambda: [find_nearest(index, query[None], K) for query in queries], _QUERIES),
            _best(lambda: flat.search(queries[:BATCH], K), 1),
            _best(lambda: [find_nearest(index, part, K) for part in np.split(queries, 8)], 8),
            _best(lambda: [filtered_flat(query[None]) for query in queries[:4]], 4),
            _best(lambda: [filtered(query[None]) for query in queries[:BATCH]], BATCH),
        ]
        best = np.min([[time() for time in times] for _ in range(repeats)], axis=0) * 1000
        return {
            "vectors": size,
            **dict(zip(_TIMES, best.tolist(), strict=True)),
            "ratio_1": float(best[0] / best[1]),
            "ratio_32": float(best[2] / best[3]),
            "ratio_filtered": float(best[4] / best[5]),
            "recall_filtered": _recall(filtered_flat, filtered, queries),
            "recall": _recall(partial(flat.search, k=K), partial(find_nearest, index, k=K), queries),
            "recall_own": _recall(partial(flat.search, k=K), partial(find_nearest, index, k=K), own),
        }


def _best(search: Callable[[], Any], parts: int) -> Callable[[], float]:
    """Return what measures the CPU seconds of one of the parts of a search, in the better of two passes.

    The first finds in the processor's cache what the other side has left there, not the codes.
    """

    def once() -> float:
        started = thread_time()
        search()
        return (thread_time() - started) / parts

    def measure() -> float:
        return min(once(), once())

    return measure


def _recall(reference: _SearchOne, search: _SearchOne, queries: Vectors) -> float:
    """Return the share of the reference's ten best that a search finds, one query at a time."""
    pairs = [(reference(query)[1][0], search(query)[1][0]) for query in np.split(queries, len(queries))]
    return float(np.mean([np.isin(correct, found).mean() for correct, found in pairs]))
