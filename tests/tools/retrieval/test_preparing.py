"""The quick way to a model's input gives what the model's own transform gives, up to rounding."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image, ImageChops
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize

from pleinair.evals.experiments.decoding import embed, models, photo
from pleinair.tools.images.reading import read_picture
from pleinair.tools.retrieval import encoder as preparing
from pleinair.tools.retrieval.encoder import preparer

SIZES = [(64, 64), (65, 64), (512, 384), (1024, 768), (90, 320), (32, 32), (64, 640)]
LEVEL = 1 / 255 / 0.25  # of a colour, after the smallest standard deviation


@pytest.fixture(scope="module")
def towers() -> dict[str, tuple[Any, Any]]:
    """The trained miniature encoder, and ViT-B/32's transform before a small random tower."""
    return models()


@pytest.fixture
def by_transform(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Note what went the quick way."""
    seen: list[str] = []
    quick = preparing._prepare

    def noted(*arguments: Any) -> Any:
        seen.append("quick")
        return quick(*arguments)

    monkeypatch.setattr(preparing, "_prepare", noted)
    yield seen


def scene(size: tuple[int, int]) -> Image.Image:
    """A photo's like, of a size."""
    image = read_picture(photo(1024, 768, "PNG")).resize(size, Image.Resampling.LANCZOS)
    return ImageChops.offset(image, 7)


@pytest.mark.parametrize("name", ["pocket", "ViT-B/32-like"])
@pytest.mark.parametrize("size", SIZES)
def test_it_gives_the_transforms_vectors(
    towers: dict[str, tuple[Any, Any]], name: str, size: tuple[int, int], by_transform: list[str]
) -> None:
    transform, model = towers[name]
    image = scene(size)
    wanted, ready = transform(image), preparer(transform)(image)
    assert by_transform == ["quick"]
    assert (ready.shape, ready.dtype) == (wanted.shape, torch.float32)
    assert float((ready - wanted).abs().max()) < 3 * LEVEL
    one, other = embed(model, torch.stack([wanted, ready]))
    assert float(one @ other) > 0.999


def test_a_picture_of_the_models_size_is_not_touched(towers: dict[str, tuple[Any, Any]]) -> None:
    transform, _ = towers["pocket"]
    image = scene((64, 64))
    assert torch.allclose(preparer(transform)(image), transform(image), atol=1e-6)


USUAL = open_clip.image_transform(32, is_train=False)
OTHERS = {
    "no list of steps": lambda image: torch.zeros(3, 4, 4),
    "another order": Compose([CenterCrop(16), *USUAL.transforms]),
    "another resize": Compose(
        [Resize(32, InterpolationMode.NEAREST), *open_clip.image_transform(32, is_train=False).transforms[1:]]
    ),
    "a step of another kind": Compose([*USUAL.transforms, Normalize((0, 0, 0), (1, 1, 1))]),
    "training": open_clip.image_transform(32, is_train=True),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_transform_that_is_not_known_is_used_itself(name: str, by_transform: list[str]) -> None:
    image = scene((64, 48))
    torch.manual_seed(0)
    wanted = OTHERS[name](image)
    torch.manual_seed(0)
    assert np.array_equal(preparer(OTHERS[name])(image), wanted)
    assert not by_transform
