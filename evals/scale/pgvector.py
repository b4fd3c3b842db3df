"""Benchmark `pgvector`: searches of vectors in Postgres, exact and by HNSW, against FAISS's flat index.

The vectors and queries are those of `search`: synthetic, in clusters of very different sizes, with a gap
between queries and vectors. Figures are clock times of whole searches of ten hits, one query at a time, from
this process: a server elsewhere adds its network. The database is a URL; the benchmark writes one table there
and drops it. Not covered: several readers at once, and vectors that are not in the server's memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from pleinair.evals.scale.command import write_figures
from pleinair.evals.scale.search import CLUSTERS, DIM, K, make_queries, make_vectors
from pleinair.tools.retrieval.exact_search import Selection
from pleinair.tools.retrieval.faiss_index import find_nearest, load_faiss
from pleinair.tools.retrieval.pgvector import PgVectors, require_extension, set_hnsw, write_table
from pleinair.tools.storage.postgres import connection

if TYPE_CHECKING:
    from psycopg import Connection

    from pleinair.tools.types import Vectors

_TABLE = "pleinair_benchmark"
_FEW = 1000  # rows of the search among selected ones


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    parser.add_argument("url", help="of a Postgres database whose server has pgvector")
    parser.add_argument("--size", type=int, default=50_000, help="vectors of 512 numbers")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the vectors; the queries' is one more")


def run(options: argparse.Namespace) -> None:
    """Print the time of writing, of building the index by HNSW, and a row for each kind of search."""
    vectors, centres = make_vectors(options.size, options.seed)
    chosen = np.random.default_rng(options.seed + 1).integers(0, CLUSTERS, options.queries)
    queries = make_queries(centres[chosen], options.seed + 1)
    figures: dict[str, Any] = {"size": options.size, "seed": options.seed, "queries": options.queries}
    try:
        with connection(options.url) as lent:
            require_extension(lent, options.url)
            for name, act in (("written", _write), ("HNSW built", _build)):
                figures[name] = _seconds(act, lent, vectors)
                print(f"{name} in {figures[name]:.1f} s", flush=True)
        figures["searches"] = _compare(options.url, vectors, queries)
    finally:
        with connection(options.url) as lent:
            lent.execute(f"DROP TABLE IF EXISTS {_TABLE}".encode())
    write_figures(options.json, figures)


def _write(lent: Connection[Any], vectors: Vectors) -> None:
    with lent.transaction():
        write_table(lent, _TABLE, DIM, vectors)


def _build(lent: Connection[Any], vectors: Vectors) -> None:
    with lent.transaction():
        lent.execute("SET LOCAL statement_timeout = 0")
        set_hnsw(lent, _TABLE, DIM, True)


def _seconds(act: Callable[..., None], *arguments: object) -> float:
    started = perf_counter()
    act(*arguments)
    return perf_counter() - started


def _compare(url: str, vectors: Vectors, queries: Vectors) -> list[dict[str, Any]]:
    """Measure each kind of search, query by query in turns, so that a load disturbs all alike."""
    flat = load_faiss().IndexFlatIP(DIM)
    flat.add(vectors)
    exact = PgVectors(url, _TABLE, len(vectors), DIM, exact=True)
    approximate = PgVectors(url, _TABLE, len(vectors), DIM)
    rng = np.random.default_rng(0)
    few = Selection(np.sort(rng.permutation(len(vectors))[:_FEW]), len(vectors))
    searches: dict[str, Callable[[Vectors], Any]] = {
        "FAISS, flat": lambda query: find_nearest(flat, query, K),
        "exact": lambda query: exact.search(query, K, None),
        "HNSW": lambda query: approximate.search(query, K, None),
        f"FAISS, {_FEW} rows": lambda query: find_nearest(flat, query, K, selection=few),
        f"exact, {_FEW} rows": lambda query: exact.search(query, K, few),
    }
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    hits: dict[str, list[Any]] = {name: [] for name in searches}
    for number in range(-3, len(queries)):  # the first three warm up
        for name, search in searches.items():
            started = perf_counter()
            _, rows = search(queries[number][None])
            if number >= 0:
                seconds[name].append(perf_counter() - started)
                hits[name].append(rows[0])
    return [_row(name, seconds, hits) for name in searches]


def _row(name: str, seconds: dict[str, list[float]], hits: dict[str, list[Any]]) -> dict[str, Any]:
    reference = f"FAISS, {_FEW} rows" if name.endswith("rows") else "FAISS, flat"
    pairs = list(zip(hits[name], hits[reference], strict=True))
    row = {
        "search": name,
        "median_ms": float(np.median(seconds[name])) * 1000,
        "p95_ms": float(np.quantile(seconds[name], 0.95)) * 1000,
        "recall": float(np.mean([np.isin(correct, rows).mean() for rows, correct in pairs])),
        "same_order": float(np.mean([(rows == correct).all() for rows, correct in pairs])),
    }
    print(
        f"{name:<18} {row['median_ms']:8.2f} ms, p95 {row['p95_ms']:8.2f} ms, "
        f"R@{K} {row['recall']:.4f}, in the same order {row['same_order']:.3f}",
        flush=True,
    )
    return row
