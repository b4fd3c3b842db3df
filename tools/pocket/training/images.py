"""Labelled images for the models that look at them: rendered samples, and a small generator's faults."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from pleinair.tools.pocket.catalogue.sampling import stranger
from pleinair.tools.pocket.catalogue.scenes import SIZE, Figure, Scene, outlines, render
from pleinair.tools.pocket.catalogue.species import SPECIES, Species

Rng = random.Random
CELL = 4  # pixels of a side of the owner map's cells
TAUGHT = tuple(species for species in SPECIES if species.tier != "novel")


@dataclass(frozen=True, slots=True)
class Sample:
    """Image, uint8 [96, 96, 3], its scene, and `owner`, int8 [24, 24].

    A cell's owner is 0 for the background, else the number of a subject of the scene, counted from 1; it is
    -1 where they mix.
    """

    pixels: NDArray[np.uint8]
    owner: NDArray[np.int8]
    scene: Scene


def choose_species(
    rng: Rng, pool: Sequence[Species], *, strangers: float, counts: Sequence[int] = (5, 4, 2)
) -> list[Species]:
    """Choose one to three different species with these weights; each may be replaced by a stranger."""
    chosen = rng.sample(list(pool), rng.choices((1, 2, 3), counts)[0])
    return [stranger(rng, s) if rng.random() < strangers else s for s in chosen]


def owner_map(scene: Scene) -> NDArray[np.int8]:
    """Return the owner of each cell of a scene, int8 [24, 24]; what is in front hides what is behind."""
    owner = np.zeros((SIZE // CELL, SIZE // CELL), dtype=np.int8)
    for figure in scene.figures:
        share = _coverage(figure)
        owner[(share > 0.15) & (share < 0.55)] = -1
        owner[share >= 0.55] = figure.subject + 1
    return owner


def _coverage(figure: Figure) -> NDArray[np.float32]:
    """Return the share of each cell that the figure covers, [24, 24] in 0..1."""
    mask = Image.new("L", (SIZE, SIZE), 0)
    draw = ImageDraw.Draw(mask)
    for points in outlines(figure):
        draw.polygon((points * SIZE).ravel().tolist(), fill=255)
    return np.asarray(mask.reduce(CELL), dtype=np.float32) / np.float32(255)


def make_sample(scene: Scene) -> Sample:
    """Render a scene with its labels."""
    return Sample(np.asarray(render(scene)).copy(), owner_map(scene), scene)


class SamplePool:
    """Rendered samples in memory, of which a few are exchanged each step: rendering costs milliseconds."""

    def __init__(self, make: Callable[[int], Sample], size: int) -> None:
        """Render `size` samples with `make(index)`, index 0 upwards."""
        self._make = make
        self._samples = [make(index) for index in range(size)]
        self._next = size

    def batch(self, rng: Rng, size: int, fresh: int = 0) -> list[Sample]:
        """Replace `fresh` of the oldest samples by new ones, then draw `size` different ones."""
        for _ in range(fresh):
            self._samples[self._next % len(self._samples)] = self._make(self._next)
            self._next += 1
        return rng.sample(self._samples, size)


def pixels(samples: Sequence[Sample]) -> Tensor:
    """Return the images as floats [n, 3, side, side] in 0..1."""
    return torch.from_numpy(np.stack([s.pixels for s in samples])).permute(0, 3, 1, 2).float() / 255


def degrade(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Return float images [n, 3, h, w] in 0..1 with a small generator's faults; a quarter stay clean.

    The faults are ragged outlines, blur, noise, blocks and a tint. At `strength` 1 outlines move by up to
    some 2 pixels, the noise has a standard deviation of up to .05 and a colour channel shifts by at most
    .05: far less than two palette colours differ.
    """
    n = len(images)
    amount = torch.rand(n, 4, generator=generator) * strength
    amount[torch.rand(n, generator=generator) < 0.25] = 0
    output = _warp(images, amount[:, 0], generator)
    output = _blur(output, amount[:, 1])
    output = _add_noise(output, amount[:, 2], generator)
    tint = 1 + (torch.rand(n, 1, 1, 1, generator=generator) - 0.5) * 0.16 * amount[:, 3].view(n, 1, 1, 1)
    shift = (torch.rand(n, 3, 1, 1, generator=generator) - 0.5) * 0.1 * amount[:, 3].view(n, 1, 1, 1)
    return (output * tint + shift).clamp(0, 1)


def _warp(images: Tensor, amount: Tensor, generator: torch.Generator) -> Tensor:
    """Move pixels along a smooth random field of up to about two pixels."""
    n, _, h, w = images.shape
    field = torch.randn(n, 2, 10, 10, generator=generator) * (2 / w) * amount.view(n, 1, 1, 1)
    field = F.interpolate(field, (h, w), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    straight = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), [n, 1, h, w], align_corners=False)
    return F.grid_sample(images, straight + field, padding_mode="border", align_corners=False)


def _blur(images: Tensor, amount: Tensor) -> Tensor:
    """Mix in a 3 × 3 mean that is applied twice."""
    soft = images
    for _ in range(2):
        soft = F.avg_pool2d(F.pad(soft, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = amount.view(-1, 1, 1, 1) * 0.8
    return torch.lerp(images, soft, share.expand_as(images))


def _add_noise(images: Tensor, amount: Tensor, generator: torch.Generator) -> Tensor:
    """Add fine noise, and coarse noise in 4-pixel blocks as of a wrong latent."""
    n, c, h, w = images.shape
    fine = torch.randn(n, c, h, w, generator=generator) * 0.04
    coarse = torch.randn(n, c, h // 4, w // 4, generator=generator) * 0.04
    blocks = F.interpolate(coarse, (h, w), mode="bilinear", align_corners=False)
    return images + (fine + blocks) * amount.view(n, 1, 1, 1)
