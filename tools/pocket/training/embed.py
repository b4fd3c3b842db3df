"""Embed pictures and texts with a pocket encoder that is being trained, or was."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pleinair.tools.pocket.training.pictures import Sample

PREPROCESS: dict[str, Any] = {
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def pixels(samples: Sequence[Sample]) -> Tensor:
    """Return the pictures as floats [n, 3, 64, 64] in 0..1."""
    return torch.from_numpy(np.stack([s.pixels for s in samples])).permute(0, 3, 1, 2).float() / 255


def normalise(pictures: Tensor) -> Tensor:
    """Apply the encoder's own mean and standard deviation to pictures in 0..1."""
    return (pictures - float(PREPROCESS["mean"][0])) / float(PREPROCESS["std"][0])


def encode_short(model: nn.Module, tokens: Tensor) -> Tensor:
    """Encode texts as open_clip does, without the padding behind the longest: unit vectors [n, 128]."""
    clip: Any = model
    length = int(tokens.argmax(-1).max()) + 1
    x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
    ends = x[torch.arange(len(x)), tokens.argmax(-1)]
    rows: Tensor = F.normalize(ends @ clip.text_projection, dim=-1)
    return rows
