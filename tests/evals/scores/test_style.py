"""Style loss: Gatys' form, by VGG-19's architecture with random weights and by the oracle's layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from pleinair.evals.pocket.oracle import Oracle
from pleinair.evals.realrag.bench import RealImages, features, real_features
from pleinair.evals.scores.items import Generated, score
from pleinair.evals.scores.style import LAYERS, StyleLoss, Vgg19, gram, style_loss
from pleinair.tools.pocket.catalogue.library import write_novel
from pleinair.tools.pocket.catalogue.scenes import Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import SPECIES
from pleinair.tools.pocket.training.cases import held_out_rng
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput

NAMES = [species.name for species in SPECIES[:6]]
PROMPTS = [f"a photo of a {name}" for name in NAMES]
BLURS = (0.5, 2, 6)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    scenes = [place_scene(held_out_rng(900 + n), [Subject(SPECIES[n])]) for n in range(6)]
    return [render(scene) for scene in scenes]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of VGG-19's convolutions, by torchvision's names."""
    from torchvision.models.vgg import cfgs, make_layers

    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.manual_seed(0)
    network = make_layers(cfgs["E"], batch_norm=False)
    torch.save({f"features.{name}": value for name, value in network.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def network(weights: Path) -> Vgg19:
    return Vgg19(str(weights), side=64)


def distorted(images: list[Image.Image], radius: float) -> list[Image.Image]:
    return [image.filter(ImageFilter.GaussianBlur(radius)) for image in images]


def test_the_loss_is_gatys_with_every_layer_and_averages_over_positions() -> None:
    first, second = np.ones((2, 3, 4), np.float32), np.zeros((2, 3, 4), np.float32)
    assert gram(first).tolist() == [[1, 1], [1, 1]]  # not 12, the number of positions
    wide = np.full((1, 2, 2), 3, np.float32)
    assert style_loss([first], [second]) == 1
    assert style_loss([first, wide], [second, 0 * wide]) == pytest.approx((1 + 81) / 2)
    # Gatys et al., equations 3 to 5, with weights 1/5 and one constant: 4 N² M² in all layers
    rng = np.random.default_rng(0)
    maps, others = ([rng.random((c, 5, 5), np.float32) for c in (2, 3, 4, 5, 6)] for _ in range(2))
    parts = []
    for layer, other in zip(maps, others, strict=True):
        flat, real = layer.reshape(len(layer), -1).astype(float), other.reshape(len(other), -1).astype(float)
        parts.append(((flat @ flat.T - real @ real.T) ** 2).sum() / (4 * len(layer) ** 2 * 25**2))
    assert style_loss(maps, others) == pytest.approx(4 * np.mean(parts), rel=1e-5)


def test_the_layers_are_the_first_convolution_of_each_block(
    network: Vgg19, images: list[Image.Image]
) -> None:
    maps = network.maps(images[0])
    assert [layer.shape for layer in maps] == [
        (64, 64, 64),
        (128, 32, 32),
        (256, 16, 16),
        (512, 8, 8),
        (512, 4, 4),
    ]
    assert list(LAYERS) == ["conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"]
    assert min(layer.min() for layer in maps) == 0  # behind the ReLU


def test_the_loss_to_several_real_images_is_the_mean_of_the_losses(
    network: Vgg19, images: list[Image.Image], tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, image in zip(paths, images, strict=False):
        image.save(path)
    items = [Generated(paths[0], "a", (paths[1], paths[2])), Generated(paths[3], "b", (paths[3],))]
    steps: list[tuple[int, int]] = []
    result = score(
        items, [StyleLoss(network)], on_progress=lambda _, done, total: steps.append((done, total))
    )[0]
    maps = [network.maps(image) for image in images[:4]]
    expected = float(np.mean([style_loss(maps[0], maps[number]) for number in (1, 2)]))
    assert result.values[0] == pytest.approx(expected, rel=1e-4)
    assert result.values[1] == pytest.approx(0, abs=expected * 1e-6)
    assert steps[-1] == (5, 5)
    assert result.note == "lower is closer"


def test_other_weights_are_refused_with_what_to_fetch(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    for name, message in (("other.pth", "has other weights"), ("none.pth", "is not a file")):
        with pytest.raises(BadInput, match=message) as error:
            Vgg19(str(tmp_path / name))
        assert "vgg19-dcbb9e9d.pth" in error.value.remedy


# the oracle's layers


def test_style_follows_texture_and_not_place(oracle: Oracle, images: list[Image.Image]) -> None:
    maps = oracle.maps(images[0])
    assert style_loss(maps, maps) == 0
    losses = [style_loss(maps, oracle.maps(*distorted(images[:1], radius))) for radius in BLURS]
    assert losses == sorted(losses)
    mirrored = images[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert style_loss(maps, oracle.maps(mirrored)) < losses[-1]


def test_similarity_separates_right_images_from_wrong_ones(
    oracle: Oracle, tmp_path: Path, images: list[Image.Image]
) -> None:
    write_novel(tmp_path / "held-out", seed=1, each=2, tiers=("known",))
    library = Library.open(tmp_path / "held-out")
    real_images = RealImages(library, OpenClipEncoder("local-dir:pocket/catalogue/encoder"), oracle)
    names = [species.name for species in SPECIES if species.tier == "known"]
    places = [n for n in range(6) if NAMES[n] in names]
    right = [real_images.similarity(images[n], NAMES[n], PROMPTS[n]) for n in places]
    wrong = [real_images.similarity(images[n - 1], NAMES[n], PROMPTS[n]) for n in places]
    for key in ("CLIP-T", "CLIP-I", "looks"):
        assert np.mean([item[key] for item in right]) > np.mean([item[key] for item in wrong])
    assert sum(item["style loss"] for item in right) > 0
    real = real_features(library, oracle, [*names, *names])
    blurred = np.stack([features(oracle.maps(image)) for image in distorted(images, 6)])
    assert real_images.distance(real, names) == pytest.approx(0, abs=1e-6)  # the very same images
    assert real_images.distance(blurred, names) > 0.1
