"""Inception-v3 as FID's feature extractor, with weights from a file that the user names.

The network of Heusel et al. (2017) is TensorFlow's of 2015, which differs from torchvision's in its pooling,
in how an image is resized, and in its weights. Features agree with torch-fidelity's to rounding
(`tests/outside/test_fid.py`); that package is no dependency, as it installs a top-level package `tests`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pleinair.evals.scores.weights import device_of, digest_of, read_weights
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Vectors

WEIGHTS = (
    "Fetch `weights-inception-2015-12-05-6726825d.pth` (95 MB, Apache-2.0) from torch-fidelity's release "
    "v0.2.0, or pytorch-fid's `pt_inception-2015-12-05-6726825d.pth`, and name its path."
)
_SIDE = 299  # pixels that the network sees
_CLASSES = 1008  # of TensorFlow's weights


class Inception:
    """Inception-v3 of FID; its features are those of the last pooling, as they are, not of length 1."""

    def __init__(self, weights: str, device: str = "auto") -> None:
        """Load the network.

        Args:
            weights: path of its state dictionary, as a `.pth` file, which is read without running code, or in
                safetensors.
            device: a torch device, or `auto` for CUDA if there is one.

        Raises:
            BadInput: the file does not exist or holds other weights.
        """
        import torch

        state = read_weights(weights, "fid", WEIGHTS)
        network = build_network()
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise BadInput(f"fid: {weights!r} has other weights than FID's Inception.", WEIGHTS) from error
        network.fc = torch.nn.Identity()
        self._device = device_of(device)
        self._network = network.eval().requires_grad_(False).to(self._device)
        self.id = f"inception@{digest_of(state)}"

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Return features, float32 [n, 2048]."""
        import torch

        with torch.inference_mode():
            pixels = torch.stack([_pixels(image) for image in images]).to(self._device)
            vectors: Vectors = self._network((pixels - 128) / 128).float().cpu().numpy()
        return vectors


@lru_cache(maxsize=2)
def open_inception(weights: str) -> Inception:
    """Open the network once for all scores by it; raise as `Inception` does."""
    return Inception(weights)


def build_network() -> Any:
    """Return torchvision's Inception-v3 with the pooling of TensorFlow's of 2015, without weights.

    The average does not count the padding, and the last block takes the maximum.
    """
    from torch.nn.functional import avg_pool2d, max_pool2d
    from torchvision.models import inception

    def with_pool(block: Any, pool: Any) -> Any:
        class Block(block):  # type: ignore[misc]
            def _forward(self, x: Any) -> list[Any]:
                return [*super()._forward(x)[:-1], self.branch_pool(pool(x))]

        return Block

    def average(x: Any) -> Any:
        return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    def maximum(x: Any) -> Any:
        return max_pool2d(x, 3, stride=1, padding=1)

    blocks = [
        inception.BasicConv2d,
        with_pool(inception.InceptionA, average),
        inception.InceptionB,
        with_pool(inception.InceptionC, average),
        inception.InceptionD,
        with_pool(inception.InceptionE, average),
        inception.InceptionAux,
    ]
    network = inception.Inception3(_CLASSES, aux_logits=False, inception_blocks=blocks, init_weights=False)
    network.Mixed_7c = with_pool(inception.InceptionE, maximum)(2048)
    return network


def _pixels(image: Image) -> Any:
    """Return an image as TensorFlow 1 resizes it: bilinear, corners not aligned, no half pixels; 0 to 255."""
    import torch

    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float()
    for dim in (2, 1):  # columns first
        size = pixels.shape[dim]
        places = torch.arange(_SIDE, dtype=torch.float32) * (size / _SIDE)
        low = places.floor().long().clamp(max=size - 1)
        first = pixels.index_select(dim, low)
        step = pixels.index_select(dim, (low + 1).clamp(max=size - 1)) - first
        part = places - low
        pixels = first + step * (part if dim == 2 else part[:, None])
    return pixels
