"""Tiny data sets of the papers from scenes of the miniature world, and scorers of random weights."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from support import tiny_clip, tiny_pipelines
from support.data_set_folders import write_data_set
from support.species import species_named

from pleinair.tools.pocket.invented.world import SPECIES, random_scene, render

CLASSES = tuple(species.name for species in SPECIES if species.tier == "rare")[:3]


def draw(name: str, number: int) -> Image.Image:
    """Return a scene of a species, another one for each number."""
    return render(random_scene(random.Random(f"{name}-{number}"), [species_named(name)]))


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
