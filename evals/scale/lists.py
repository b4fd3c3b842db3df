"""Benchmark `lists`: search by lists on disk, as above ten million vectors, against FAISS's exact index.

Vectors and queries are those of the benchmark `search`, at sizes of which a machine can measure the truth.
Figures: processor's seconds of writing the lists, the lists that a query reads, milliseconds of a query
on one core (best of several, both sides in turns, files in memory), and recall of the ten best. Not covered:
real embeddings, files that are not in memory, and ten million vectors.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time, thread_time
from typing import TYPE_CHECKING, Any

import numpy as np

from pleinair.evals.scale.command import write_figures
from pleinair.evals.scale.search import DIM, K, make_case
from pleinair.tools.retrieval import disk_search
from pleinair.tools.retrieval.faiss_index import find_nearest, read_vectors

if TYPE_CHECKING:
    from collections.abc import Callable

    from pleinair.tools.types import Vectors

_QUERIES = 128
_COLUMNS = (
    "seconds",
    "lists",
    "nprobe",
    "candidates",
    "held_out",
    "flat_ms",
    "ours_ms",
    "recall",
    "recall_own",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000])
    parser.add_argument("--seed", type=int, default=0, help="of the vectors; the queries' is one more")
    parser.add_argument("--repeats", type=int, default=3, help="of each time, of which the best counts")


def run(options: argparse.Namespace) -> None:
    """Print a row a size."""
    rows = []
    names = "written, s", "lists", "read", "compared", "held out", "flat, ms", "ours, ms", "R@10", "own R@10"
    print(f"{'vectors':>9}", *(f"{name:>10}" for name in names))
    for size in options.sizes:
        row = _measure(size, options.seed, options.repeats)
        rows.append(row)
        print(f"{size:>9}", *(f"{row[name]:>10.4g}" for name in _COLUMNS), flush=True)
    write_figures(options.json, {"seed": options.seed, "repeats": options.repeats, "sizes": rows})


def _measure(size: int, seed: int, repeats: int) -> dict[str, Any]:
    import faiss

    vectors, queries, own = make_case(size, seed, _QUERIES, _QUERIES)
    with TemporaryDirectory() as place:
        folder = Path(place)
        name = disk_search.write_flat(folder, list(vectors), DIM)
        flat = read_vectors(folder / name, size, DIM)
        start = process_time()
        measured = disk_search.write_lists(folder, name, flat)
        seconds = process_time() - start
        lists = disk_search.read_lists(folder / measured.lists, size, DIM, measured.candidates)
        faiss.omp_set_num_threads(1)

        def ours(queries: Vectors) -> Any:
            return find_nearest(flat, queries, K, lists=lists)

        def exact(queries: Vectors) -> Any:
            return flat.search(queries, K)

        times = [[_seconds(search, queries) for search in (exact, ours)] for _ in range(repeats)]
        best = np.min(times, axis=0) * 1000 / _QUERIES
        ivf: Any = faiss.extract_index_ivf(lists.index)
        return {
            **{"vectors": size, "seconds": seconds, "lists": ivf.nlist, "nprobe": ivf.nprobe},
            **{"candidates": measured.candidates, "held_out": measured.recall, "flat_ms": float(best[0])},
            "ours_ms": float(best[1]),
            "recall": _recall(exact, ours, queries),
            "recall_own": _recall(exact, ours, own),
        }


def _seconds(search: Callable[[Vectors], Any], queries: Vectors) -> float:
    """Return the processor's seconds of queries that are asked one by one."""
    start = thread_time()
    for query in queries:
        search(query[None])
    return thread_time() - start


def _recall(exact: Callable[[Vectors], Any], ours: Callable[[Vectors], Any], queries: Vectors) -> float:
    pairs = zip(exact(queries)[1], ours(queries)[1], strict=True)
    return float(np.mean([np.isin(right, rows).mean() for right, rows in pairs]))
