"""Fit the linear patch map that the autoencoder's encoder is: 4 × 4 pixels to 16 whitened channels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pleinair.tools.pocket.world import SPECIES, random_scene, random_species, render, training_rng

Floats = NDArray[np.float32]
PATCH = 4
CHANNELS = 16


@dataclass(frozen=True, slots=True)
class PatchMap:
    """Hold `basis` (48, 16), `mean` (48,) and `scale` (16,): latent = (patch - mean) @ basis / scale."""

    basis: Floats
    mean: Floats
    scale: Floats

    def encode(self, pictures: NDArray[np.uint8]) -> Floats:
        """Map (n, h, w, 3) bytes to (n, 16, h/4, w/4) latents."""
        n, h, w, _ = pictures.shape
        latents = (_to_patches(pictures) - self.mean) @ (self.basis / self.scale)
        return latents.reshape(n, h // PATCH, w // PATCH, CHANNELS).transpose(0, 3, 1, 2)

    def decode(self, latents: Floats) -> NDArray[np.uint8]:
        """Map (n, 16, h, w) latents to (n, 4h, 4w, 3) bytes: the best linear reconstruction."""
        n, _, h, w = latents.shape
        patches = latents.transpose(0, 2, 3, 1) @ (self.basis * self.scale).T + self.mean
        pixels = patches.reshape(n, h, w, PATCH, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
        pixels = pixels.reshape(n, h * PATCH, w * PATCH, 3)
        return ((pixels.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)


def _to_patches(pictures: NDArray[np.uint8]) -> Floats:
    """Cut (n, h, w, 3) bytes into (n * h/4 * w/4, 48) patches in -1..1, ordered row, column, colour."""
    n, h, w, _ = pictures.shape
    cut = pictures.reshape(n, h // PATCH, PATCH, w // PATCH, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(-1, PATCH * PATCH * 3).astype(np.float32) / 127.5 - 1


def sample_pictures(count: int, first_index: int) -> NDArray[np.uint8]:
    """Render `count` training pictures of known and random species: (count, 64, 64, 3) bytes."""
    known = [s for s in SPECIES if s.tier == "known"]
    pictures = []
    for index in range(first_index, first_index + count):
        rng = training_rng(index)
        chosen = [
            rng.choice(known) if rng.random() < 0.4 else random_species(rng) for _ in range(1 + index % 2)
        ]
        scene = random_scene(rng, chosen, relation=rng.choice(("beside", "above")))
        pictures.append(np.asarray(render(scene)))
    return np.stack(pictures)


def fit_patch_map(pictures: NDArray[np.uint8]) -> PatchMap:
    """Return the first 16 principal components of the pictures' patches, each scaled to unit variance."""
    patches = _to_patches(pictures)
    mean = patches.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((patches - mean).T.astype(np.float64)))
    order = np.argsort(values)[::-1][:CHANNELS]
    basis, scale = vectors[:, order].astype(np.float32), np.sqrt(values[order]).astype(np.float32)
    return PatchMap(basis, mean, scale)
