"""Random weights of FID's Inception-v3 that keep an image's differences up to the last pooling."""

from __future__ import annotations

from pathlib import Path

import torch

from pleinair.evals.scores.inception import build_network


def save_inception(path: Path) -> Path:
    """Save weights that depend on torch's generator alone, as a state dictionary, and return its path."""
    generator = torch.Generator().manual_seed(0)
    state = build_network().state_dict()
    for name, value in state.items():
        if value.ndim == 4:  # uniform with the variance of He et al. (2015)
            bound = (6 / value[0].numel()) ** 0.5
            value.copy_((torch.rand(value.shape, generator=generator) * 2 - 1) * bound)
        elif name.startswith("fc"):
            value.zero_()
    torch.save(state, path)
    return path
