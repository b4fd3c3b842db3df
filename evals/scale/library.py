"""Time and memory of opening a library with its index, against its size.

The libraries are synthetic: catalogues of images that do not exist, with captions of ten words, and vectors
of random directions. Each size is opened in processes of its own, one after the other in turn, so that load
from elsewhere meets all of them; the best of each counts. The reference is the smallest size of the run.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pleinair.evals.scale.command import write_figures
from pleinair.tools.retrieval.build import write_index
from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.manifest import File

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

_WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("ala", "eno", "iru", "ova", "ulm")]
_IDENTITY = "synthetic"


class Directions:
    """Encoder of texts as random directions; it encodes no image."""

    id = _IDENTITY

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        """Return a direction a text, float32 [texts, dim], of length 1."""
        return _directions(np.random.default_rng([len(text) for text in texts]), len(texts), self.dim)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Raise `NotImplementedError`."""
        raise NotImplementedError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 20_000, 350_000], help="images")
    parser.add_argument("--dim", type=int, default=512, help="numbers of a vector (default: 512)")
    parser.add_argument("--repeat", type=int, default=7, help="openings of each size (default: 7)")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> None:
    """Print the time and the memory of opening each size, with the ratio to the smallest."""
    if options.open:
        print(json.dumps(_open(options.open, options.dim)))
        return
    with tempfile.TemporaryDirectory() as root:
        folders = {size: Path(root) / str(size) for size in sorted(options.sizes)}
        for size, folder in folders.items():
            write_synthetic(folder, size, options.dim)
            print(f"written: {size:,} images", file=sys.stderr)
        runs: dict[int, list[dict[str, float]]] = {size: [] for size in folders}
        for _ in range(options.repeat):
            for size, folder in folders.items():
                runs[size].append(_in_process(folder, options.dim))
    best = {size: {name: min(each[name] for each in of) for name in of[0]} for size, of in runs.items()}
    smallest = best[min(best)]
    for size, figures in best.items():
        ratio = figures["open"] / smallest["open"]
        print(
            f"{size:>9,} images: opened in {figures['open']:.2f} ms ({ratio:.2f} x {min(best):,} images), "
            f"first search {figures['search']:.2f} ms, memory {figures['memory']:.1f} MB"
        )
    write_figures(options.json, {"dim": options.dim, "repeat": options.repeat, "best": best})


def write_synthetic(folder: Path, size: int, dim: int, seed: int = 0) -> None:
    """Write the catalogue, the vectors and the captions' words of `size` images into a folder."""
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
    vectors = _directions(np.random.default_rng(seed), size, dim)
    folder.mkdir(parents=True)
    by_digest = {file.sha256: vectors[row] for row, file in enumerate(files.values())}
    write_index(folder, library, _IDENTITY, files, by_digest)


def _directions(random: np.random.Generator, count: int, dim: int) -> Vectors:
    vectors = random.standard_normal((count, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _in_process(folder: Path, dim: int) -> dict[str, float]:
    words = ["scale", "library", "--open", str(folder), "--dim", str(dim)]
    command = [sys.executable, "-m", "pleinair.evals", *words]
    figures: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return figures


def _open(folder: Path, dim: int) -> dict[str, Any]:
    """Return the milliseconds of opening and of a first hybrid search, and the megabytes that stay after."""
    import time

    import faiss

    from pleinair.tools.retrieval.catalogue import open_catalogue
    from pleinair.tools.retrieval.compose import Corpus, RetrievalOptions, compose
    from pleinair.tools.retrieval.dense import IndexRetriever
    from pleinair.tools.retrieval.index import Index
    from pleinair.tools.retrieval.manifest import load_manifest

    faiss.omp_set_num_threads(1)
    encoder = Directions(dim)
    next(_memory())
    before, started = next(_memory()), time.perf_counter()
    library = Library.of_catalogue(open_catalogue(folder / load_manifest(folder).catalogue))
    index = Index.open(folder, encoder)
    retriever = IndexRetriever(library, index, encoder)
    opened = time.perf_counter()
    after = next(_memory())
    options = RetrievalOptions(method="hybrid", deduplicate=0)
    corpus = Corpus(options, lambda: library, lambda: retriever)
    compose(options, corpus).search("bala deno", 6)
    return {
        "open": 1000 * (opened - started),
        "search": 1000 * (time.perf_counter() - opened),
        "memory": (after - before) / 2**20,
    }


def _memory() -> Iterator[int]:
    """Yield the resident bytes of this process."""
    import psutil

    process = psutil.Process()
    while True:
        yield process.memory_info().rss
