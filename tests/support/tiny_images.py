"""Libraries of many tiny images of noise in tar files, and a profile with a tiny CLIP for them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from support.tiny_clip import CLIP, save

SIDE = 16  # pixels


def write_library(folder: Path, count: int, tars: int = 10) -> Path:
    """Write a library of different images as PNG; two files are damaged, and one image is there twice."""
    folder.mkdir(parents=True)
    random, each = np.random.default_rng(0), count // tars
    for number in range(tars):
        with tarfile.open(folder / f"{number:02}.tar", "w") as tar:
            for place in range(each):
                data = _png(random)
                if number == 0 and place in (5, 20):
                    data = data[: len(data) // 2]
                names = [f"{place:05}.png", *(["00008-copy.png"] if (number, place) == (0, 8) else ())]
                for name in names:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


def write_profile(folder: Path) -> Path:
    """Write a CLIP with random weights, and a profile that has it as its encoder; return the profile."""
    clip = folder / "clip"
    clip.mkdir(parents=True)
    save(clip, CLIP, "CLIP")
    profile = folder / "tiny.toml"
    profile.write_text(
        f'extends = "pocket"\n[encoder]\nbackend = "open_clip"\nmodel = "local-dir:{clip}"\n'
        '[library]\nreaders = ["file_names"]\n'
    )
    return profile


def _png(random: np.random.Generator) -> bytes:
    data = io.BytesIO()
    pixels = random.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, "PNG", compress_level=0)
    return data.getvalue()
