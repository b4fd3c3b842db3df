"""Bring decoded pictures to what a vision model takes, by torchvision on bytes where that gives the same.

A model's own transform resizes with Pillow, which takes longer than decoding does. Torch's resize of 8-bit
pixels has the same antialiased kernels and differs by rounding: at most a level or two in 255. Not covered:
decoding; decoders of torchvision are as fast as Pillow's, so files stay with `decoding`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Prepare = Callable[["Image"], Any]


def preparer(reference: Any) -> Prepare:
    """Give a fast form of open_clip's transform, or the transform itself if it holds a step not known here.

    The result turns an RGB picture of any size into a float32 tensor [3, height, width].
    """
    from open_clip.transform import MaybeConvertMode, MaybeToTensor
    from torchvision.transforms import CenterCrop, Normalize, Resize

    steps = list(getattr(reference, "transforms", ()))
    crops = [step for step in steps if isinstance(step, CenterCrop)]
    usual = (Resize, *[CenterCrop] * len(crops), MaybeConvertMode, MaybeToTensor, Normalize)
    if tuple(type(step) for step in steps) != usual or not _smooth(steps[0]):
        return lambda image: reference(image)
    return lambda image: _prepare(image, steps[0], crops, steps[-1])


def _smooth(resize: Any) -> bool:
    """Tell whether a resize is one that torch does on bytes as Pillow does."""
    return bool(resize.antialias) and resize.interpolation.value in ("bilinear", "bicubic")


def _prepare(image: Image, resize: Any, crops: list[Any], normalize: Any) -> Any:
    import torch
    from torchvision.transforms.v2 import functional

    rows = torch.from_numpy(np.array(image)).permute(2, 0, 1)  # the copy stays [height, width, 3]: faster
    size = [resize.size] if isinstance(resize.size, int) else list(resize.size)
    pixels = functional.resize(rows, size, resize.interpolation, resize.max_size, antialias=True)
    for crop in crops:
        pixels = crop(pixels)
    return normalize(pixels.float() / 255)
