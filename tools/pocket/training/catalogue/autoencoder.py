"""Training of the autoencoder's decoder for the catalogue world; its encoder is the linear patch map."""

from __future__ import annotations

import numpy as np
import torch

from pleinair.tools.pocket.catalogue.scenes import render
from pleinair.tools.pocket.training.autoencoder import load_decoder, to_tensor, train_decoder
from pleinair.tools.pocket.training.catalogue.cases import draw_item, held_out_rng, training_rng
from pleinair.tools.pocket.training.catalogue.pool import load_patch_map
from pleinair.tools.pocket.training.course import Run

IMAGES, FIRST_INDEX = 4000, 4_000_000_000
NAME = "decoder"  # of the checkpoint


def train(run: Run) -> None:
    """Train the decoder on the absolute error, on rendered scenes."""
    torch.manual_seed(0)
    rngs = [training_rng(FIRST_INDEX + index) for index in range(run.size(IMAGES, 8))]
    images = np.stack([np.asarray(render(draw_item(rng, 0).scene)) for rng in rngs])
    train_decoder(run, NAME, load_patch_map(run), images)
    run.say(f"held-out error {_error(run):.2f} / 255")


def _error(run: Run) -> float:
    """Return the mean absolute error on 60 held-out scenes, in 1/255."""
    patch_map = load_patch_map(run)
    model = load_decoder(run, NAME, patch_map)
    images = np.stack([np.asarray(render(draw_item(held_out_rng(i), i % 3).scene)) for i in range(60)])
    with torch.inference_mode():
        decoded = model.decoder(torch.from_numpy(patch_map.encode(images)))
    return float((decoded.clamp(-1, 1) - to_tensor(images)).abs().mean() * 127.5)
