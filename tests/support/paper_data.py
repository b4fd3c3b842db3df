"""Tiny data sets of the papers from scenes of the miniature world, and scorers of random weights."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from support import tiny_clip, tiny_pipelines
from support.data_set_folders import write_data_set

from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.catalogue.scenes import render
from pleinair.tools.pocket.catalogue.species import BY_NAME

CLASSES = ("scarlet ibis", "crowned crane", "mandarin duck")  # rare, of two words as iNaturalist's


def draw(name: str, number: int) -> Image.Image:
    """Return a scene of a species, another one for each number."""
    return render(draw_scene(random.Random(f"{name}-{number}"), [BY_NAME[name]]))


def write_data(
    folder: Path, *layouts: str, classes: Sequence[str] = CLASSES, train: int = 3, test: int = 2
) -> Path:
    """Write data sets side by side, each under the name of its layout, and return their folder."""
    for layout in layouts:
        write_data_set(layout, folder / layout.partition(":")[0], classes, train=train, test=test, draw=draw)
    return folder


def save_scorers(folder: Path) -> list[str]:
    """Save a CLIP and a DINOv2 of random weights; return them as options of a command."""
    clip = folder / "clip"
    clip.mkdir()
    tiny_clip.save(clip, tiny_clip.CLIP, "CLIP")
    dino = tiny_pipelines.save_dinov2(folder / "dinov2")
    return ["--scorer", f"clip:local-dir:{clip}", "--scorer", f"dinov2:{dino}"]
