"""Time, memory and bytes of a library with its index, against its size: built, opened, searched first.

The libraries are synthetic: catalogues of images that do not exist, with captions of ten words, and vectors
in clusters, as of the benchmark `search`. Each size is built in a process of its own, and opened in others,
the sizes in turn, so that load from elsewhere meets all of them; the least of each counts. All compute on one
thread. References are the smallest size of the run, and FAISS reading the same file of vectors into memory.
Resident memory has the pages of mapped files, which the system can drop; anonymous memory has not. Not
covered: a disk whose pages are not in memory yet, and the time of embedding.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from PIL import Image

from pleinair.evals.scale.command import write_figures
from pleinair.evals.scale.search import DIM, make_queries, make_vectors
from pleinair.tools.retrieval.build import write_index
from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.manifest import File, load_manifest

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

_WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("ala", "eno", "iru", "ova", "ulm")]
_IDENTITY = "synthetic"
_QUERY = "bala deno"
_MIB = 2**20

Figures = dict[str, Any]  # JSON


class Near:
    """Encoder of any text as a query near the centre of a cluster; it encodes no image."""

    id, dim = _IDENTITY, DIM

    def __init__(self, seed: int) -> None:
        centres = make_vectors(1, seed)[1]
        self._query = make_queries(centres[:1], seed + 1)

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Return the query for each text, float32 [texts, dim]."""
        queries: Vectors = self._query.repeat(len(texts), axis=0)
        return queries

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Raise `NotImplementedError`."""
        raise NotImplementedError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    sizes = [1_000, 10_000, 100_000, 350_000]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes, help="images")
    parser.add_argument("--seed", type=int, default=0, help="of the vectors and the captions (0)")
    parser.add_argument("--repeat", type=int, default=5, help="openings of each size (5)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # of a process: what it measures
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> None:
    """Print the time, the memory and the bytes of each size, with the ratios to the references."""
    if options.part:
        print(json.dumps(PARTS[options.part](options.folder, options.sizes[0], options.seed)))
        return
    rows: dict[int, Figures] = {size: {"images": size} for size in sorted(options.sizes)}
    with tempfile.TemporaryDirectory() as root:
        for size, row in rows.items():
            row |= _in_process("write", Path(root), size, options.seed)
            print(f"written: {size:,} images in {row['write_s']:.1f} s", file=sys.stderr)
        for _ in range(options.repeat):
            for size, row in rows.items():
                for part in ("open", "read"):
                    for name, value in _in_process(part, Path(root), size, options.seed).items():
                        row[name] = min(value, row.get(name, value))
    smallest = next(iter(rows.values()))
    for row in rows.values():
        print(
            f"{row['images']:>9,} images: opened in {row['open_ms']:.2f} ms "
            f"({row['open_ms'] / smallest['open_ms']:.2f} × {smallest['images']:,} images, "
            f"{row['open_ms'] / row['read_ms']:.4f} × reading the vectors), {row['open_mb']:.1f} MB; "
            f"first search {row['first_search_ms']:.0f} ms, {row['search_mb']:.1f} MB, of them "
            f"{row['search_anonymous_mb']:.1f} anonymous; the vectors read: {row['read_mb']:.1f} MB"
        )
    figures = {"seed": options.seed, "repeat": options.repeat, "dim": DIM, "sizes": list(rows.values())}
    write_figures(options.json, figures)


def write_synthetic(folder: Path, size: int, seed: int = 0) -> None:
    """Write the catalogue, the vectors and the captions' words of `size` images into a folder."""
    library, files = synthetic_library(folder, size, seed)
    vectors = make_vectors(size, seed)[0]
    folder.mkdir(parents=True)
    by_digest = {file.sha256: vectors[row] for row, file in enumerate(files.values())}
    write_index(folder, library, _IDENTITY, files, by_digest)


def synthetic_library(folder: Path, size: int, seed: int = 0) -> tuple[Library, dict[str, File]]:
    """Return a library of `size` images that do not exist, with captions of ten words, and their files."""
    library = Library({"": str(folder / "images")})
    chooser, digits = random.Random(seed), len(str(size))
    items = (
        Item(f"{number:0{digits}}.jpg", 1000 + number, 1, " ".join(chooser.choices(_WORDS, k=10)), "CC0-1.0")
        for number in range(size)
    )
    library.items = {item.id: item for item in items}
    files = {
        item.id: File(id=item.id, sha256=f"{number:064x}", size=item.size, mtime_ns=1)
        for number, item in enumerate(library.items.values())
    }
    return library, files


def _in_process(part: str, root: Path, size: int, seed: int) -> dict[str, Any]:
    words = ["--part", part, "--folder", str(root / str(size)), "--sizes", str(size), "--seed", str(seed)]
    command = [sys.executable, "-m", "pleinair.evals", "scale", "library", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # several threads wait for each other on busy cores
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout
    figures: dict[str, Any] = json.loads(output)
    return figures


def _write(folder: Path, size: int, seed: int) -> Figures:
    """Write a library; return the seconds, the peak of the resident memory, and the bytes by kind."""
    started = time.perf_counter()
    write_synthetic(folder, size, seed)
    seconds, manifest = time.perf_counter() - started, load_manifest(folder)
    vectors, exact = (folder / manifest.vectors).stat().st_size, 4 * DIM * size
    words = sum(path.stat().st_size for path in (folder / manifest.words).iterdir())
    return {
        "write_s": seconds,
        "write_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "bytes": {
            "exact vectors": exact,
            "codes": vectors - exact,  # with the head of the file, of some bytes
            "catalogue": (folder / manifest.catalogue).stat().st_size,
            "words of captions": words,
        },
    }


def _open(folder: Path, size: int, seed: int) -> Figures:
    """Return the milliseconds and the added MiB of opening and of a first hybrid search."""
    import faiss

    from pleinair.tools.retrieval.catalogue import open_catalogue
    from pleinair.tools.retrieval.compose import Corpus, RetrievalOptions, compose
    from pleinair.tools.retrieval.dense import IndexRetriever
    from pleinair.tools.retrieval.index import Index

    faiss.omp_set_num_threads(1)
    encoder, process = Near(seed), psutil.Process()
    memory_of(process)
    before, started = memory_of(process), time.perf_counter()
    library = Library.of_catalogue(open_catalogue(folder / load_manifest(folder).catalogue))
    index = Index.open(folder, encoder)
    retriever = IndexRetriever(library, index, encoder)
    opened = time.perf_counter()
    after_open = memory_of(process)
    options = RetrievalOptions(method="hybrid", deduplicate=0)
    compose(options, Corpus(options, lambda: library, lambda: retriever)).search(_QUERY, 6)
    searched = time.perf_counter()
    after_search = memory_of(process)
    return {
        "open_ms": 1000 * (opened - started),
        "open_mb": after_open[0] - before[0],
        "open_anonymous_mb": after_open[1] - before[1],
        "first_search_ms": 1000 * (searched - opened),
        "search_mb": after_search[0] - before[0],
        "search_anonymous_mb": after_search[1] - before[1],
    }


def _read(folder: Path, size: int, seed: int) -> Figures:
    """Return the milliseconds and the added MiB of reading the vectors into memory."""
    import faiss

    process = psutil.Process()
    path = str(folder / load_manifest(folder).vectors)
    before, started = memory_of(process), time.perf_counter()
    index = faiss.read_index(path)
    seconds = time.perf_counter() - started
    if index.ntotal != size:
        raise RuntimeError(f"{path}: {index.ntotal} vectors, not {size}")
    return {"read_ms": 1000 * seconds, "read_mb": memory_of(process)[0] - before[0]}


def memory_of(process: psutil.Process) -> tuple[float, float]:
    """Return a process's resident memory and the anonymous part of it, in MiB."""
    memory = process.memory_info()
    return memory.rss / _MIB, (memory.rss - memory.shared) / _MIB


PARTS = {"write": _write, "open": _open, "read": _read}
