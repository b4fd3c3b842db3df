"""Measure what reading images for an index costs: `python -m pleinair.evals.experiments.decoding`.

Two questions, each with both answers in the same run, in processor time of all processes: what decoding in a
process of its own costs, and what torchvision could save. It needs Linux, and fewer than 1,000 files of a
kind. Not covered: several cores, where the processes of `sandbox` work in parallel; a GPU's decoder.
"""

from __future__ import annotations

import argparse
import io
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from time import clock_gettime, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pleinair.tools.images.reading import read_picture
from pleinair.tools.images.sandbox import Decoder
from pleinair.tools.model_files.folders import locate
from pleinair.tools.retrieval.encoder import OpenClipEncoder, Preparation

SIZES = ((64, 64, "PNG"), (512, 384, "JPEG"), (1024, 768, "JPEG"), (1024, 768, "PNG"), (1024, 768, "WEBP"))
VIT = {"image_size": 224, "layers": 4, "width": 256, "patch_size": 32, "head_width": 64}
TEXT = {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 2, "layers": 1}

Embed = Callable[[Sequence[Image.Image]], Any]


@cache
def photo(width: int, height: int, kind: str, seed: int = 0) -> bytes:
    """Return a file with the smooth shapes, edges and grain of a photograph."""
    rng = np.random.default_rng(seed)
    coarse = (rng.normal(128, 60, (height // 16, width // 16, 3))).clip(0, 255).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    blocks = Image.fromarray(coarse[: height // 64, : width // 64])
    edges = blocks.resize((width, height), Image.Resampling.BOX)
    mixed = np.asarray(Image.blend(smooth, edges, 0.4)) + rng.normal(0, 6, (height, width, 1))
    file = io.BytesIO()
    Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(file, kind, quality=90)
    return file.getvalue()


def _milliseconds(
    read: Callable[[bytes], Any], files: Sequence[bytes], clock: Callable[[], float] = process_time
) -> float:
    """Return the time for a file, after the first."""
    read(files[0])
    started = clock()
    for data in files:
        read(data)
    return 1000 * (clock() - started) / len(files)


def _apart(files: Sequence[bytes], use: Callable[[Image.Image], Any]) -> tuple[float, float]:
    """Return the milliseconds for a file in both processes, and those of the second one's start."""
    decoder = Decoder()
    decoder.read(photo(64, 64, "PNG"))
    clock = (~decoder._idle[-1].process.pid << 3) | 2  # Linux's clock of another process's CPU time
    start = clock_gettime(clock)
    time = _milliseconds(
        lambda data: use(decoder.read(data).image), files, lambda: process_time() + clock_gettime(clock)
    )
    decoder.close()
    return time, 1000 * start


def _reading(files: Sequence[bytes], embed: Embed) -> dict[str, float]:
    """Measure decoding alone and in an index, in this process and in one of its own."""
    apart, start = _apart(files, lambda image: None)
    index_apart, _ = _apart(files, lambda image: embed([image]))
    return {
        "here": _milliseconds(read_picture, files),
        "apart": apart,
        "index here": _milliseconds(lambda data: embed([read_picture(data)]), files),
        "index apart": index_apart,
        "start": start,
    }


def _preparing(files: Sequence[bytes], transform: Any, model: Any) -> dict[str, float]:
    """Measure Pillow, torchvision's decoder, and Pillow's decoder with torch's resize; compare vectors."""
    import torch
    from torchvision.io import ImageReadMode, decode_image

    fast = Preparation(transform)

    def by_torchvision(data: bytes) -> Any:
        raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # deprecated since torchvision 0.29
            return decode_image(raw, mode=ImageReadMode.RGB)

    images = [read_picture(data) for data in files]
    first, second = (
        embed(model, torch.stack([prepare(image) for image in images])) for prepare in (transform, fast)
    )
    return {
        "Pillow": _milliseconds(read_picture, files),
        "torchvision": _milliseconds(by_torchvision, files),
        "its transform": _milliseconds(lambda data: transform(images[0]), files),
        "ours": _milliseconds(lambda data: fast(images[0]), files),
        "cosine": float((first * second).sum(axis=1).min()),
    }


def embed(model: Any, pixels: Any) -> NDArray[np.float32]:
    """Return unit vectors of prepared images."""
    import torch

    with torch.inference_mode():
        rows = torch.nn.functional.normalize(model.encode_image(pixels).float(), dim=-1)
    vectors: NDArray[np.float32] = rows.numpy()
    return vectors


def models() -> dict[str, tuple[Any, Any]]:
    """Return the trained miniature encoder, and a small random tower with ViT-B/32's preprocessing."""
    import open_clip
    import torch

    torch.manual_seed(0)
    pocket, transform = open_clip.create_model_from_pretrained(f"local-dir:{locate('pocket/encoder')}")
    tower = open_clip.CLIP(embed_dim=128, vision_cfg=VIT, text_cfg=TEXT)
    reference = open_clip.image_transform(224, is_train=False)
    return {"pocket": (transform, pocket.eval()), "ViT-B/32-like": (reference, tower.eval())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        prog="python -m pleinair.evals.experiments.decoding", description=__doc__
    )
    parser.add_argument("--files", type=int, default=40, help="files of each kind (40)")
    count = max(2, parser.parse_args(arguments).files)
    encoder = OpenClipEncoder("local-dir:pocket/encoder", device="cpu", threads=1)
    towers = models()
    for width, height, kind in SIZES:
        few = [photo(width, height, kind, seed) for seed in range(count)]
        files = few * max(1, 100_000 // (width * height))
        print(f"\n{width} x {height} {kind}, {len(files)} files, processor time of each in milliseconds")
        times = _reading(files, encoder.encode_images)
        print(f"  {_format(times)}; apart / here = {times['apart'] / times['here']:.2f}")
        print(f"  a whole index, apart / here = {times['index apart'] / times['index here']:.2f}")
        for name, (transform, model) in towers.items():
            times = _preparing(few, transform, model)
            ratio = times["its transform"] / times["ours"]
            print(f"  for {name}: {_format(times)}; its transform / ours = {ratio:.2f}")


def _format(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.{5 if name == 'cosine' else 2}f}" for name, value in figures.items())


if __name__ == "__main__":
    main()
