"""Inception-v3 as FID's feature extractor, with weights from a file that the user names."""

from __future__ import annotations

import io
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
    "v0.2.0, and name its path."
)


class Inception:
    """Inception-v3 of FID in torch-fidelity's port; its features are as they are, not of length 1."""

    def __init__(self, weights: str, layer: str = "2048", device: str = "auto") -> None:
        """Load the network.

        Args:
            weights: path of its state dictionary, as a `.pth` file, which is read without running code, or in
                safetensors.
            layer: "2048", the last pooling, is FID's; "64", "192" and "768" are earlier ones.
            device: a torch device, or `auto` for CUDA if there is one.

        Raises:
            BadInput: the file does not exist or holds other weights, or torch-fidelity is not installed.
        """
        import torch

        state = read_weights(weights, "fid", WEIGHTS)
        self._device = device_of(device)
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise BadInput(
                "fid needs the package torch-fidelity.", "`pip install 'pleinair[evals]'`."
            ) from error
        file = io.BytesIO()  # the class reads pickles as code: it gets what was read as data
        torch.save(state, file)
        file.seek(0)
        try:
            network = FeatureExtractorInceptionV3("inception-v3-compat", [layer], file)
        except RuntimeError as error:
            raise BadInput(
                f"fid: {weights!r} has other weights than torch-fidelity's Inception.", WEIGHTS
            ) from error
        self._network = network.to(self._device)
        self.id = f"inception:{layer}@{digest_of(state)}"

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Return features, float32 [n, 2048]; the network resizes each image as TensorFlow 1 did."""
        import torch

        with torch.inference_mode():
            rows = [self._network(self._pixels(image))[0].float().cpu().numpy() for image in images]
        return np.concatenate(rows)

    def _pixels(self, image: Image) -> Any:
        import torch

        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        return pixels.unsqueeze(0).to(self._device)


@lru_cache(maxsize=2)
def open_inception(weights: str) -> Inception:
    """Open the network once for all scores by it; raise as `Inception` does."""
    return Inception(weights)
