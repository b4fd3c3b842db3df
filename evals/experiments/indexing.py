"""Measure the index of large photographs: `python -m pleinair.evals.experiments.indexing`.

The same folder of 12-megapixel JPEGs is indexed twice, each time by a program of its own: with images decoded
at full size, and with images reduced to what the encoder needs; with --apart both times reduced, with the
encoder in that program and in a process beside it. Printed are seconds, the peak memory of all processes
(shared pages counted in each), the time of a text, the ratio, and how near the vectors of both sizes are. Not
covered: a GPU, and slow disks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil
from PIL import Image

from pleinair.tools.retrieval.build import build_index
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.retrieval.library import Library
from pleinair.tools.worker.worker import EncoderWorker

SIZE = 4000, 3000
LAYERS = ((8, 70.0), (32, 40.0), (128, 22.0), (512, 14.0), (2000, 12.0))  # cells across, standard deviation
WAYS = ("full", "reduced", "apart")
_TEXTS = 20
_SAMPLE = 0.05  # seconds between looks at the memory


class Encoder:
    """The miniature encoder, or a random ViT-B/32; for images at full size, or in its own process.

    Args:
        name: `pocket` or `ViT-B-32`, which is written into the folder if it is not there.
        place: the folder.
        way: "full", "reduced", or "apart", which is "reduced" in a process of its own.
    """

    def __init__(self, name: str, place: Path, way: str) -> None:
        folder = "pocket/encoder" if name == "pocket" else str(random_clip(place / name))
        arguments: dict[str, Any] = {"model": f"local-dir:{folder}", "device": "cpu", "precision": "float32"}
        encoder = EncoderWorker("open_clip", arguments) if way == "apart" else OpenClipEncoder(**arguments)
        self.id, self.image_side = encoder.id, 0 if way == "full" else encoder.image_side
        self.encode_text, self.encode_images = encoder.encode_text, encoder.encode_images


def random_clip(folder: Path) -> Path:
    """Write a random ViT-B/32 as open_clip saves it, unless it is there; return the folder."""
    if folder.exists():
        return folder
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir()
    save_file(open_clip.create_model("ViT-B-32").state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _photo(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Return smooth fields of several scales with grain: as JPEG some 3 MB at 12 megapixels."""
    (width, height), rng = size, np.random.default_rng(seed)
    pixels = rng.normal(128, 3, (height, width, 1)).astype(np.float32)
    for cells, deviation in LAYERS:
        grid = rng.normal(0, deviation, (max(2, cells * height // width), cells, 3)).astype(np.float32)
        planes = [
            Image.fromarray(grid[:, :, plane]).resize(size, Image.Resampling.BICUBIC) for plane in range(3)
        ]
        pixels = pixels + np.stack([np.asarray(plane) for plane in planes], axis=-1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_library(folder: Path, count: int, distinct: int, size: tuple[int, int] = SIZE) -> float:
    """Write `count` JPEGs of `distinct` images, no two files equal; return their mean size in MB."""
    folder.mkdir()
    for seed in range(distinct):
        _photo(seed, size).save(folder / f"{seed:05}.jpg", quality=90)
    for number in range(distinct, count):
        data = (folder / f"{number % distinct:05}.jpg").read_bytes()
        stamp = f"{number:08}".encode()  # after the end of the image
        (folder / f"{number:05}.jpg").write_bytes(data + stamp)
    return sum(path.stat().st_size for path in folder.iterdir()) / count / 1e6


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Measure the largest memory of this process and its children, in MB, into the list."""
    peaks, end = [0.0], threading.Event()

    def sample() -> None:
        process = psutil.Process()
        while not end.wait(_SAMPLE):
            total = 0
            for part in (process, *process.children(recursive=True)):
                try:
                    total += part.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peaks[0] = max(peaks[0], total / 1e6)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peaks
    finally:
        end.set()
        thread.join()


def _cpu_seconds() -> float:
    """Return the seconds that this process and its living children have computed."""
    process = psutil.Process()
    return sum(sum(part.cpu_times()[:2]) for part in (process, *process.children(recursive=True)))


def measure(folder: Path, name: str, way: str, index: Path) -> dict[str, float]:
    """Index the folder, then embed texts one by one.

    Return the seconds of the index without the encoder's loading, those on processors, the peak memory in MB,
    and the milliseconds of a text that is new, and of one that is cached.
    """
    encoder, library = Encoder(name, index.parent, way), Library.open(folder)
    with peak_memory() as peaks:
        started, computed = perf_counter(), _cpu_seconds()
        build_index(library, encoder, index)
        seconds, computed = perf_counter() - started, _cpu_seconds() - computed
    times = []
    for _ in range(2):
        started = perf_counter()
        for number in range(_TEXTS):
            encoder.encode_text([f"a photo of {number} birds"])
        times.append((perf_counter() - started) / _TEXTS * 1000)
    return {
        "seconds": seconds,
        "computed": computed,
        "megabytes": peaks[0],
        "text": times[0],
        "cached": times[1],
    }


def _apart(folder: Path, name: str, way: str, index: Path) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, "--folder", str(folder), "--encoder", name]
    command += ["--index", str(index), "--way", way]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


def _nearness(folder: Path, name: str, place: Path, files: int) -> float:
    """Return the least cosine between an image's vectors at full size and reduced."""
    from pleinair.tools.images.decoding import ReadOptions
    from pleinair.tools.images.reading import read_picture

    encoder = Encoder(name, place, "reduced")
    paths = sorted(folder.iterdir())[:files]
    both = [
        encoder.encode_images([read_picture(path, ReadOptions(side)) for path in paths])
        for side in (0, 2 * encoder.image_side)
    ]
    return float((both[0] * both[1]).sum(axis=1).min())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each way and encoder, and the ratios."""
    parser = argparse.ArgumentParser(
        prog="python -m pleinair.evals.experiments.indexing", description=__doc__
    )
    parser.add_argument("--photos", type=int, default=100, help="files (100)")
    parser.add_argument("--distinct", type=int, default=8, help="images among them (8)")
    parser.add_argument("--side", type=int, default=SIZE[0], help="pixels of the longer side (4000)")
    parser.add_argument("--encoder", help="`pocket` or `ViT-B-32`; both by default")
    for name, text in (("--folder", "index this folder only"), ("--index", "into this one")):
        parser.add_argument(name, type=Path, help=text)
    parser.add_argument("--way", choices=WAYS, default="reduced", help="full, reduced or apart (reduced)")
    parser.add_argument("--apart", action="store_true", help="compare reduced with apart, not with full")
    options = parser.parse_args(arguments)
    if options.folder:
        print(json.dumps(measure(options.folder, options.encoder, options.way, options.index)))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photos"
        size = options.side, options.side * 3 // 4
        megabytes = write_library(folder, options.photos, min(options.distinct, options.photos), size)
        print(f"{options.photos} JPEGs of {size[0]} x {size[1]}, {megabytes:.1f} MB each")
        for name in [options.encoder] if options.encoder else ["pocket", "ViT-B-32"]:
            _compare(
                folder, name, ("reduced", "apart") if options.apart else ("full", "reduced"), Path(place)
            )


def _compare(folder: Path, name: str, ways: Sequence[str], place: Path) -> None:
    figures = [_apart(folder, name, way, place / f"{name}-{way}") for way in ways]
    for way, figure in zip(ways, figures, strict=True):
        print(
            f"  {name}, {way}: {figure['seconds']:.1f} s, at most {figure['megabytes']:.0f} MB; "
            f"{figure['computed']:.1f} s computed; a text {figure['text']:.1f} ms, a cached one "
            f"{figure['cached']:.2f} ms"
        )
    ratio = figures[0]["seconds"] / figures[1]["seconds"]
    print(
        f"  {name}: {' / '.join(ways)} = {ratio:.2f}; cosine {_nearness(folder, name, place, 4):.5f} or more"
    )


if __name__ == "__main__":
    main()
