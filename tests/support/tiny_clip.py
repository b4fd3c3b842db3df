"""Tiny open_clip models with random weights, in folders as open_clip saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WIDTH = 64
CLIP = {  # as open_clip's ViT-B-32, but small; context and vocabulary are of full size
    "embed_dim": WIDTH,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": WIDTH, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 1},
}
PREPROCESSING = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash", "interpolation": "bicubic"}


def save(place: Path, model_cfg: dict[str, Any], kind: str) -> Any:
    """Save a model with random weights as open_clip does, and return it."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {"model_cfg": model_cfg, "preprocess_cfg": PREPROCESSING}
    (place / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{place}", load_weights=False)
    assert type(model).__name__ == kind
    save_file(model.state_dict(), place / "open_clip_model.safetensors")
    return model
