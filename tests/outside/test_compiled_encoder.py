"""A compiled image tower, which takes a C++ compiler and a minute, returns the vectors of the plain one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from support import tiny_clip

from pleinair.tools.retrieval.encoder import OpenClipEncoder

IMAGES = [Image.effect_noise((64, 64), 20 + shade).convert("RGB") for shade in range(20)]


def test_a_compiled_tower_returns_the_same_vectors(tmp_path: Path) -> None:
    tiny_clip.save(tmp_path, tiny_clip.CLIP, "CLIP")
    arguments: dict[str, Any] = {
        "model": f"local-dir:{tmp_path}",
        "device": "cpu",
        "precision": "float32",
        "batch": 8,
    }
    plain, compiled = OpenClipEncoder(**arguments), OpenClipEncoder(**arguments, compile=True)
    assert compiled.id == plain.id
    assert compiled._model.visual._compiled_call_impl is not None
    np.testing.assert_allclose(compiled.encode_images(IMAGES), plain.encode_images(IMAGES), atol=1e-5)
