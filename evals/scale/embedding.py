"""Indexing of large JPEGs with a random ViT-B/32, against open_clip's own loop in float32.

Both embed the same files in turns in one process, and the best of several turns counts: open_clip's loop
opens, prepares and embeds 32 images at a time on torch's threads; `build_index` decodes in its sandbox and
chooses precision and threads by the machine. The same build with decoding in this process shows what
isolation costs. Seconds on the clock depend on what else runs, so seconds of all processors are printed as
well. With --against, an earlier commit's Python, `build_index` of both indexes the pocket library, each in a
process of its own. Not covered: a GPU, slow disks, and weights that are trained on photographs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import numpy as np
import psutil
from numpy.typing import NDArray

from pleinair.evals.experiments.indexing import random_clip, write_library
from pleinair.evals.scale.command import write_figures
from pleinair.tools.images.decoding import FULL, ReadOptions
from pleinair.tools.images.reading import BadPicture, read_picture
from pleinair.tools.images.sandbox import Read
from pleinair.tools.retrieval import embedding
from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.retrieval.library import Library

SIZE = 1152, 864  # a megapixel
_BATCH = 32  # of open_clip's loop
_POCKET = """
import json, sys, time
from importlib import import_module
from pathlib import Path
import psutil
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.retrieval.library import Library
try:
    build = import_module("pleinair.tools.retrieval.build").build_index
except ImportError:
    build = import_module("pleinair.tools.retrieval.index").build_index
encoder = OpenClipEncoder("local-dir:pocket/catalogue/encoder", device="cpu")
library = Library.open(Path(sys.argv[1]))
process = psutil.Process()
before, started = sum(process.cpu_times()[:2]), time.perf_counter()
build(library, encoder, Path(sys.argv[2]))
seconds = time.perf_counter() - started
used = sum(sum(part.cpu_times()[:2]) for part in (process, *process.children()))
print(json.dumps([seconds, used - before]))
"""

_Vectors = NDArray[np.float32]
_Seconds = tuple[float, float]  # on the clock, of all processors


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--images", type=int, default=128, help="number of JPEGs (default: 128)")
    parser.add_argument("--turns", type=int, default=3, help="turns, of which the best counts (default: 3)")
    parser.add_argument("--against", type=Path, help="Python of an environment with an earlier commit")


def run(options: argparse.Namespace) -> None:
    """Measure and print the figures."""
    with tempfile.TemporaryDirectory() as place:
        if options.against:
            figures = _against(options, Path(place))
        else:
            figures = _large(options, Path(place))
    write_figures(options.json, {"images": options.images, "turns": options.turns, "seconds": figures})


def _large(options: argparse.Namespace, place: Path) -> dict[str, _Seconds]:
    folder = place / "photos"
    megabytes = write_library(folder, options.images, min(8, options.images), SIZE)
    encoder = OpenClipEncoder(f"local-dir:{random_clip(place / 'ViT-B-32')}", device="cpu")
    library, index, loop = Library.open(folder), place / "index", _open_clip_loop(place / "ViT-B-32")
    vectors: dict[str, _Vectors] = {}

    def reference() -> None:
        vectors["open_clip"] = loop(sorted(folder.iterdir()))

    def build() -> None:
        shutil.rmtree(index, ignore_errors=True)
        built = build_index(library, encoder, index)
        vectors["ours"] = np.stack([built.vector(id) for id in built.ids])

    def without_isolation() -> None:
        with patch.object(embedding, "read_many", _read_here):
            build()

    ways = {"open_clip, float32": reference, "build_index": build, "no isolation": without_isolation}
    figures = _in_turns(ways, options.turns)
    cosine = float((vectors["open_clip"] * vectors["ours"]).sum(axis=1).min())
    print(f"{options.images} JPEGs of {SIZE[0]} x {SIZE[1]}, {megabytes:.2f} MB each; {encoder.precision}")
    _print(figures, "build_index", options.images)
    print(f"least cosine of a vector to open_clip's own: {cosine:.5f}")
    return figures


def _open_clip_loop(folder: Path) -> Callable[[Sequence[Path]], _Vectors]:
    """Load a model and return a function that embeds files as open_clip's documentation does."""
    import open_clip
    import torch
    from PIL import Image

    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model.eval()

    def embed(paths: Sequence[Path]) -> _Vectors:
        rows = []
        with torch.inference_mode():
            for start in range(0, len(paths), _BATCH):
                pixels = torch.stack([prepare(Image.open(path)) for path in paths[start : start + _BATCH]])
                rows.append(model.encode_image(pixels, normalize=True).numpy())
        return np.concatenate(rows)

    return embed


def _read_here(files: Sequence[bytes], options: ReadOptions = FULL) -> list[Read | BadPicture]:
    return [Read(read_picture(data, options)) for data in files]


def _against(options: argparse.Namespace, place: Path) -> dict[str, _Seconds]:
    from pleinair.tools.pocket.catalogue.library import write_library as write_pocket

    write_pocket(place / "pocket", size=2000)
    figures: dict[str, _Seconds] = {}
    for turn in range(options.turns):
        for name, python in (("earlier", str(options.against)), ("build_index", sys.executable)):
            command = [python, "-c", _POCKET, str(place / "pocket"), str(place / f"{name}-{turn}")]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            _keep(figures, name, json.loads(output.splitlines()[-1]))
    print("the pocket library of 2,000 images of 96 x 96")
    _print(figures, "build_index", 2000)
    return figures


def _in_turns(ways: dict[str, Callable[[], None]], turns: int) -> dict[str, _Seconds]:
    figures: dict[str, _Seconds] = {}
    for _ in range(turns):
        for name, work in ways.items():
            started, used = perf_counter(), _processors()
            work()
            _keep(figures, name, (perf_counter() - started, _processors() - used))
    return figures


def _keep(figures: dict[str, _Seconds], name: str, seconds: Sequence[float]) -> None:
    """Keep the least seconds of each clock."""
    before = figures.get(name, tuple(seconds))
    figures[name] = min(before[0], seconds[0]), min(before[1], seconds[1])


def _processors() -> float:
    """Return the seconds that this process and its living children have computed."""
    process = psutil.Process()
    return sum(sum(part.cpu_times()[:2]) for part in (process, *process.children(recursive=True)))


def _print(figures: dict[str, _Seconds], ours: str, images: int) -> None:
    for name, (seconds, used) in figures.items():
        ratios = f"{seconds / figures[ours][0]:.2f} and {used / figures[ours][1]:.2f} × those of {ours}"
        print(
            f"  {name}: {seconds:.2f} s, {images / seconds:.1f} images/s; processors {used:.2f} s; {ratios}"
        )
