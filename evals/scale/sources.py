"""Listing and reading of a library's images in containers, against the same images as files of a folder.

Each container is listed anew, listed again from the cache, and read in order and at random places, in turns
with the folder; the best of several turns counts. Images are random bytes with the head of a JPEG: what is
measured is the way to the bytes, not decoding.
"""

from __future__ import annotations

import argparse
import io
import random
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from pleinair.evals.scale.command import write_figures
from pleinair.tools.retrieval.roots.opening import contents_of, root_of
from pleinair.tools.retrieval.roots.root import Contents

T = TypeVar("T")
KINDS = ("folder", "tar", "parquet", "arrow")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--images", type=int, default=2000, help="number of images (default: 2000)")
    parser.add_argument("--bytes", type=int, default=50_000, help="bytes of each image (default: 50000)")
    parser.add_argument("--turns", type=int, default=3, help="turns, of which the best counts (default: 3)")


def run(options: argparse.Namespace) -> None:
    """Measure and print the figures."""
    draws = random.Random(0)
    images = [b"\xff\xd8\xff" + draws.randbytes(options.bytes - 3) for _ in range(options.images)]
    figures: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    with tempfile.TemporaryDirectory() as place:
        for kind in KINDS:
            write(Path(place) / kind, kind, images)
        for turn in range(options.turns):
            for kind in KINDS:
                cache = Path(place) / f"cache-{kind}-{turn}"
                for name, seconds in _measured(Path(place) / kind, cache).items():
                    figures[kind][name] = min(seconds, figures[kind].get(name, seconds))
    print(f"{options.images} images of {options.bytes} bytes; seconds, and × those of the folder")
    for kind, times in figures.items():
        ratios = (
            f"{name} {seconds:.3f} ({seconds / figures['folder'][name]:.2f} ×)"
            for name, seconds in times.items()
        )
        print(f"{kind:<8} {', '.join(ratios)}")
    write_figures(options.json, {"images": options.images, "bytes": options.bytes, "seconds": figures})


def write(folder: Path, kind: str, images: Sequence[bytes]) -> None:
    """Write images into a folder, as files or in one container; row groups and batches have 100 rows."""
    folder.mkdir()
    if kind == "folder":
        for number, data in enumerate(images):
            (folder / f"{number:06}.jpg").write_bytes(data)
    elif kind == "tar":
        with tarfile.open(folder / "x.tar", "w") as archive:
            for number, data in enumerate(images):
                member = tarfile.TarInfo(f"{number:06}.jpg")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        import pyarrow as pa
        from pyarrow.parquet import write_table

        table = pa.table({"image": pa.array(images, pa.binary())})
        if kind == "parquet":
            write_table(table, folder / "x.parquet", row_group_size=100, use_dictionary=False)
        else:
            with (
                pa.OSFile(str(folder / "x.arrow"), "wb") as file,
                pa.ipc.new_stream(file, table.schema) as writer,
            ):
                writer.write_table(table, 100)


def _measured(folder: Path, cache: Path) -> dict[str, float]:
    """Return the seconds of each operation."""
    seconds, contents = _timed(lambda: _list(folder, cache))
    again, _ = _timed(lambda: _list(folder, cache))
    paths = sorted(contents.listing.images)
    chosen = random.Random(1).choices(paths, k=50)
    return {
        "list": seconds,
        "list again": again,
        "read in order": _timed(lambda: _read(contents, paths))[0],
        "read 50 at random": _timed(lambda: _read(contents, chosen))[0],
    }


def _list(folder: Path, cache: Path) -> Contents:
    contents = contents_of({"": root_of(str(folder))}, cache)[""]
    assert all(map(contents.stamp, contents.listing.images))
    return contents


def _read(contents: Contents, paths: Sequence[str]) -> int:
    return sum(len(contents.read(path, 2**30)) for path in paths)


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    start = perf_counter()
    result = call()
    return perf_counter() - start, result
