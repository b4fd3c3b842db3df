"""Style loss of Gatys et al. (2016) by VGG-19: how far the textures of two images are apart.

Cross-modal RAG names neither layers nor weights, so these are Gatys': the five layers of `LAYERS` with equal
weights. Figures of other layers, weights or image sizes cannot be compared with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pleinair.evals.metrics import Interval
from pleinair.evals.scores.items import Generated, OnProgress
from pleinair.evals.scores.weights import device_of, digest_of, read_weights
from pleinair.tools.images.sandbox import read_untrusted
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

    Maps = Sequence[NDArray[np.float32]]  # feature maps of an image, each [channels, height, width]
    Gram = NDArray[np.float64]  # [channels, channels]

WEIGHTS = (
    "Fetch torchvision's `vgg19-dcbb9e9d.pth` (575 MB, trained on ImageNet), or its convolutions alone as "
    "safetensors, and name its path."
)
LAYERS = {"conv1_1": 1, "conv2_1": 6, "conv3_1": 11, "conv4_1": 20, "conv5_1": 29}  # places behind their ReLU
SIDE = 512  # pixels of an image's longer side, Gatys' size
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's weights
_PREFIX = "features."


def style_loss(generated: Maps, real: Maps) -> float:
    """Compare two images' Gram matrices, with equal weights of the layers.

    A layer's part is the mean squared difference of G = F Fᵀ / positions, which is 4 times Gatys' E of that
    layer. The caller chooses the network of the maps; figures of two networks cannot be compared.
    """
    pairs = zip(map(gram, generated), map(gram, real), strict=True)
    return float(np.mean([np.mean((first - second) ** 2) for first, second in pairs]))


def gram(maps: NDArray[np.float32]) -> Gram:
    """Return the products of channels, averaged over positions: [channels, channels]."""
    flat = maps.reshape(len(maps), -1)
    return np.asarray(flat @ flat.T / flat.shape[1], dtype=np.float64)


class Vgg19:
    """Convolutions of VGG-19 (Simonyan and Zisserman, 2015) in torchvision's architecture."""

    def __init__(self, weights: str, side: int = SIDE, device: str = "auto") -> None:
        """Load the network.

        Args:
            weights: path of torchvision's state dictionary, with or without the classifier, as a `.pth` file,
                which is read without running code, or in safetensors.
            side: pixels to which an image's longer side is resized.
            device: a torch device, or `auto` for CUDA if there is one.

        Raises:
            BadInput: the file does not exist, or holds other weights.
        """
        from torchvision.models.vgg import cfgs, make_layers

        state = read_weights(weights, "style", WEIGHTS)
        own = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
        network = make_layers(cfgs["E"], batch_norm=False)[: max(LAYERS.values()) + 1]
        names = network.state_dict().keys()
        try:
            network.load_state_dict({name: own[name] for name in names})
        except (KeyError, RuntimeError) as error:
            raise BadInput(
                f"style: {weights!r} has other weights than torchvision's VGG-19.", WEIGHTS
            ) from error
        self._side, self._device = side, device_of(device)
        self._network = network.eval().requires_grad_(False).to(self._device)
        self.id = f"vgg19:{side}px@{digest_of(network.state_dict())}"

    def maps(self, image: Image) -> Maps:
        """Return the responses of `LAYERS` behind their ReLU: float32, each [channels, height, width]."""
        import torch

        found = []
        with torch.inference_mode():
            rows = self._pixels(image)
            for place, layer in enumerate(self._network):
                rows = layer(rows)
                if place in LAYERS.values():
                    found.append(rows[0].cpu().numpy())
        return found

    def _pixels(self, image: Image) -> Any:
        """Return an image, resized and normalised: [1, 3, height, width]."""
        import torch

        scale = self._side / max(image.size)
        size = max(round(image.width * scale), 16), max(round(image.height * scale), 16)  # 4 poolings
        pixels = np.asarray(image.convert("RGB").resize(size), dtype=np.float32) / 255
        normal = (pixels - np.array(_MEAN, np.float32)) / np.array(_SPREAD, np.float32)
        return torch.from_numpy(normal).permute(2, 0, 1).unsqueeze(0).to(self._device)


@lru_cache(maxsize=2)
def open_vgg(weights: str) -> Vgg19:
    """Open the network once; raise as `Vgg19` does."""
    return Vgg19(weights)


class StyleLoss:
    """Mean style loss of an image to its real images.

    Gram matrices take 5 MB an image, so they are cached nowhere: the real images of one class are read once
    for all generated ones of that class, and only their sums are in memory.
    """

    needs_truth = True
    bounds: Interval = (0.0, inf)
    title = "style loss"
    note = "lower is closer"

    def __init__(self, network: Vgg19) -> None:
        self.name = f"{self.title}, {network.id}"
        self._network = network

    def score(self, items: Sequence[Generated], on_progress: OnProgress) -> list[float]:
        """Return each image's mean loss over its real images."""
        classes: dict[tuple[Path, ...], list[int]] = {}
        for place, item in enumerate(items):
            classes.setdefault(item.truth, []).append(place)
        total, done = len(items) + sum(map(len, classes)), 0
        values = [0.0] * len(items)
        for truth, places in classes.items():
            mean, power = _sums(map(self._grams, truth))
            done += len(truth)
            on_progress(done, total)
            for place in places:
                values[place] = _mean_loss(self._grams(items[place].image), mean, power)
                done += 1
                on_progress(done, total)
        return values

    def _grams(self, path: Path) -> list[Gram]:
        return [gram(maps) for maps in self._network.maps(read_untrusted(path))]


def _sums(images: Iterator[list[Gram]]) -> tuple[list[Gram], list[float]]:
    """Return for each layer the mean of the images' Gram matrices, and of their mean squares."""
    first = next(images)
    means, powers, n = first, [float(np.mean(layer**2)) for layer in first], 1
    for layers in images:
        means = [total + layer for total, layer in zip(means, layers, strict=True)]
        powers = [total + float(np.mean(layer**2)) for total, layer in zip(powers, layers, strict=True)]
        n += 1
    return [total / n for total in means], [total / n for total in powers]


def _mean_loss(layers: Sequence[Gram], means: Sequence[Gram], powers: Sequence[float]) -> float:
    """Return the mean over real images of the mean squared difference: G² - 2 G·mean + mean of squares."""
    parts = [
        float(np.mean(layer**2) - 2 * np.mean(layer * mean)) + power
        for layer, mean, power in zip(layers, means, powers, strict=True)
    ]
    return max(float(np.mean(parts)), 0.0)
