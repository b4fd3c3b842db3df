"""Time and memory of the library page's list, against the library's size.

The libraries are synthetic catalogues of images that do not exist, with captions of ten words. Each size is
opened in processes of its own, in turn; the best of each counts. The reference is the smallest size. Each
list is asked for as the page does, with `PAGE` images and the total.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pleinair.evals.scale.command import write_figures
from pleinair.evals.scale.library import synthetic_library
from pleinair.tools.retrieval.catalogue import open_catalogue, write_catalogue
from pleinair.tools.retrieval.library import Library

PAGE = 60  # images
REPEAT = 20  # lists of a kind in a process; the best counts


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 350_000], help="images")
    parser.add_argument("--repeat", type=int, default=3, help="processes of each size (default: 3)")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> None:
    """Print the time of each kind of list and the memory of all, with the ratio to the smallest size."""
    if options.open:
        print(json.dumps(_measure(options.open)))
        return
    with tempfile.TemporaryDirectory() as root:
        folders = {size: Path(root) / str(size) for size in sorted(options.sizes)}
        seconds = {size: _write(folder, size) for size, folder in folders.items()}
        runs: dict[int, list[dict[str, float]]] = {size: [] for size in folders}
        for _ in range(options.repeat):
            for size, folder in folders.items():
                runs[size].append(_in_process(folder))
    best = {size: {name: min(each[name] for each in of) for name in of[0]} for size, of in runs.items()}
    smallest = best[min(best)]
    for size, figures in best.items():
        print(
            f"{size:,} images: catalogue written in {seconds[size]:.2f} s, lists {figures['memory']:.1f} MB"
        )
        for name in [name for name in figures if name != "memory"]:
            ratio = figures[name] / smallest[name]
            print(f"  {name:<40} {figures[name]:8.2f} ms ({ratio:.1f} x {min(best):,} images)")
    write_figures(options.json, {"repeat": options.repeat, "best": best, "written": seconds})


def _write(folder: Path, size: int) -> float:
    """Write a catalogue of `size` images into a folder; return the seconds that it took."""
    library, files = synthetic_library(folder, size)
    folder.mkdir()
    checks = {file.sha256: 0 for file in files.values()}
    started = time.perf_counter()
    write_catalogue(folder, library.items.values(), files, checks, library.facts())
    return time.perf_counter() - started


def _in_process(folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "pleinair.evals", "scale", "pages", "--open", str(folder)]
    figures: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return figures


def _measure(folder: Path) -> dict[str, float]:
    """Return the milliseconds of each kind of list, and the megabytes that stay after."""
    import psutil

    from pleinair.app.library.image_list import ImageList

    process = psutil.Process()
    before = process.memory_info().rss
    (path,) = folder.glob("catalogue-*")
    started = time.perf_counter()
    images = ImageList(Library.of_catalogue(open_catalogue(path)))
    last = (len(images) - 1) // PAGE * PAGE
    figures: dict[str, Any] = {"open": 1000 * (time.perf_counter() - started)}
    item = images.page("", "any", last, 1).items[0]
    key = images.key(item)
    lists: dict[str, Callable[[], Any]] = {
        "first page": lambda: images.page("", "any", 0, PAGE),
        "last page": lambda: images.page("", "any", last, PAGE),
        "a file name": lambda: images.page(item.id, "any", 0, PAGE),
        "two words (1 of 40 images)": lambda: images.page("bala deno", "any", 0, PAGE),
        "one word (1 of 6 images)": lambda: images.page("bala", "any", 0, PAGE),
        "free licenses (all images)": lambda: images.page("", "free", 0, PAGE),
        "an image by its key": lambda: images.by_key(key),
    }
    for name, read in lists.items():
        times = list[float]()
        for _ in range(REPEAT):
            started = time.perf_counter()
            read()
            times.append(time.perf_counter() - started)
        figures[name] = 1000 * min(times)
    return figures | {"memory": (process.memory_info().rss - before) / 2**20}
