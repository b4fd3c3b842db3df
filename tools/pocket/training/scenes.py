"""Labelled images and texts of the world, for the models that read images: samples, phrases, degradation."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pleinair.tools.pocket.prompts import RELATIONS, caption, describe, with_article
from pleinair.tools.pocket.training.streams import LOOKS, random_species
from pleinair.tools.pocket.world import SPECIES, Scene, Species, Subject, colour_pairs, random_scene, render

GRID = 16  # cells a side of the owner map, 4 pixels each
TAUGHT = tuple(species for species in SPECIES if species.tier != "novel")
Rng = random.Random


@dataclass(frozen=True, slots=True)
class Sample:
    """Image, uint8 [64, 64, 3], its scene, and `owner`, int8 [16, 16].

    A cell's owner is 0 for the background, 1 or 2 for a subject of the scene, -1 where the two mix.
    """

    pixels: NDArray[np.uint8]
    owner: NDArray[np.int8]
    scene: Scene


def impostor(rng: Rng, species: Species) -> Species:
    """Return the species with one of its two colours exchanged, so that it is none of `SPECIES`."""
    looks = [
        (body, accent)
        for body, accent in colour_pairs()
        if (body == species.body) != (accent == species.accent) and (species.kind, body, accent) not in LOOKS
    ]
    body, accent = rng.choice(looks)
    return replace(species, name="", tier="novel", body=body, accent=accent)


def _coverage(subject: Subject) -> NDArray[np.float32]:
    """Return the share of each cell that the subject covers, [16, 16] in 0..1; windows count as holes.

    The subject is drawn in black on the meadow, whose red channel is nowhere under 160.
    """
    black = replace(subject, species=replace(subject.species, body="black", accent="black"))
    red = np.asarray(render(Scene((black,), "meadow", 0), GRID), dtype=np.float32)[..., 0]
    return ((160 - red) / 130).clip(0, 1)


def owner_map(scene: Scene) -> NDArray[np.int8]:
    """Return the owner of each cell of a scene, int8 [16, 16]."""
    owner = np.zeros((GRID, GRID), dtype=np.int8)
    for number, subject in enumerate(scene.subjects, start=1):
        share = _coverage(subject)
        owner[(share > 0.15) & (share < 0.55)] = -1
        owner[share >= 0.55] = number
    return owner


def render_sample(rng: Rng, species: Sequence[Species]) -> Sample:
    """Render one scene of one or two species in a random relation."""
    scene = random_scene(rng, species, relation=rng.choice(RELATIONS))
    return Sample(np.asarray(render(scene)).copy(), owner_map(scene), scene)


def choose_species(
    rng: Rng, pool: Sequence[Species], *, pairs: float = 0.5, strangers: float = 0.25
) -> list[Species]:
    """Choose one species of the pool or, with probability `pairs`, two different ones.

    Each is replaced, with probability `strangers`, by an impostor or by a freshly invented look.
    """
    species = rng.sample(list(pool), 2 if rng.random() < pairs else 1)
    return [_stranger(rng, s) if rng.random() < strangers else s for s in species]


def _stranger(rng: Rng, species: Species) -> Species:
    if rng.random() < 0.7:
        return impostor(rng, species)
    return replace(random_species(rng), name="")


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
    """Return the images as floats [n, 3, 64, 64] in 0..1."""
    return torch.from_numpy(np.stack([s.pixels for s in samples])).permute(0, 3, 1, 2).float() / 255


@dataclass(frozen=True, slots=True)
class Look:
    """Attributes of a species that a phrase states; None stands for one that it leaves open."""

    kind: str
    body: str | None = None
    accent: str | None = None
    pattern: str | None = None

    def fits(self, species: Species) -> bool:
        """Return whether a species has all stated attributes."""
        pairs = (
            (self.kind, species.kind),
            (self.body, species.body),
            (self.accent, species.accent),
            (self.pattern, species.pattern),
        )
        return all(stated in (None, actual) for stated, actual in pairs)


@dataclass(frozen=True, slots=True)
class Text:
    """Text with its meaning: a look for each subject, and the background if it names one."""

    words: str
    looks: tuple[Look, ...]
    background: str | None = None

    def fits(self, scene: Scene) -> bool:
        """Return whether the text describes the scene, whatever else it leaves open."""
        return (
            self.background in (None, scene.background)
            and len(self.looks) == len(scene.subjects)
            and all(any(look.fits(s.species) for s in scene.subjects) for look in self.looks)
        )


def _full_look(species: Species) -> Look:
    """Return the look that a name or a full description states."""
    return Look(species.kind, species.body, species.accent, species.pattern)


def phrase(rng: Rng, species: Species) -> Text:
    """Write a phrase for one subject: its name, its full description, or a part of that ('teal bird')."""
    chance = rng.random()
    words, look = describe(species), _full_look(species)
    if species.name and chance < 0.55:
        words = species.name
    elif chance > 0.85:
        words, look = _partial_description(rng, species)
    wording = rng.choice((words, with_article(words), f"a photo of {with_article(words)}"))
    return Text(wording, (look,))


def _partial_description(rng: Rng, species: Species) -> tuple[str, Look]:
    kind, body, pattern = species.kind, species.body, species.pattern
    if rng.random() < 0.4:
        return kind, Look(kind)
    if pattern == "plain" or rng.random() < 0.6:
        return f"{body} {kind}", Look(kind, body)
    return f"{pattern} {body} {kind}", Look(kind, body, pattern=pattern)


def scene_text(rng: Rng, scene: Scene) -> Text:
    """Write a caption of the scene, or a phrase if there is one subject."""
    if len(scene.subjects) == 1 and rng.random() < 0.5:
        return phrase(rng, scene.subjects[0].species)
    by_name = all(s.species.name for s in scene.subjects) and rng.random() < 0.6
    looks = tuple(_full_look(s.species) for s in scene.subjects)
    return Text(caption(rng, scene, by_name=by_name), looks, scene.background)


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
