"""Training of the autoencoder's decoder for the catalogue world; its encoder is the linear patch map."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pleinair.tools.pocket.catalogue.scenes import render
from pleinair.tools.pocket.training.autoencoder import _schedule as schedule
from pleinair.tools.pocket.training.autoencoder import build_autoencoder, to_tensor
from pleinair.tools.pocket.training.catalogue.cases import draw_item, held_out_rng, training_rng
from pleinair.tools.pocket.training.catalogue.pool import load_patch_map
from pleinair.tools.pocket.training.course import Course, Muon, Run

IMAGES, BATCH = 4000, 4
MUON_RATE, ADAM_RATE = 0.02, 2e-3


def train(run: Run) -> None:
    """Train the decoder on the absolute error, on rendered scenes."""
    torch.manual_seed(0)
    patch_map = load_patch_map(run.work)
    images = np.stack(
        [np.asarray(render(draw_item(training_rng(4_000_000_000 + i), i % 3).scene)) for i in range(IMAGES)]
    )
    decoder = build_autoencoder(patch_map).decoder.to(memory_format=torch.channels_last)
    kernels = {n: p for n, p in decoder.named_parameters() if p.ndim == 4 and "conv_out" not in n}
    rest = [p for n, p in decoder.named_parameters() if n not in kernels]
    optimizers = [
        Muon(kernels.values(), lr=MUON_RATE),
        torch.optim.AdamW(rest, lr=ADAM_RATE, weight_decay=0.0),
    ]
    course = Course(run, "decoder", decoder, optimizers, schedule, clip=math.inf, decay=0.98)
    for _ in course.steps():
        batch = images[torch.randint(len(images), (BATCH,)).numpy()]
        latents = torch.from_numpy(patch_map.encode(batch)).contiguous(memory_format=torch.channels_last)
        course.descend((decoder(latents) - to_tensor(batch)).abs().mean())
    run.say(f"held-out error {error(run):.2f} / 255")


def _load_autoencoder(run: Run) -> Any:
    """Return the run's autoencoder with the decoder as far as it is trained."""
    stored = run.load("decoder")
    assert stored is not None, "train the decoder first"
    model = build_autoencoder(load_patch_map(run.work))
    model.decoder.load_state_dict(stored["average"])
    return model.eval()


def error(run: Run) -> float:
    """Return the mean absolute error on 60 held-out scenes, in 1/255."""
    model, patch_map = _load_autoencoder(run), load_patch_map(run.work)
    images = np.stack([np.asarray(render(draw_item(held_out_rng(i), i % 3).scene)) for i in range(60)])
    with torch.inference_mode():
        decoded = model.decoder(torch.from_numpy(patch_map.encode(images)))
    return float((decoded.clamp(-1, 1) - to_tensor(images)).abs().mean() * 127.5)


if __name__ == "__main__":
    train(Run(Path(sys.argv[1]), Path(sys.argv[1]), float(sys.argv[2]), resume=True, tiny=False))
