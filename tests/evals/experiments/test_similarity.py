"""Similarity scores on real models with random weights and on images whose order is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageFilter
from support import tiny_pipelines as tiny

from pleinair.evals.experiments.similarity import (
    Dinov2,
    frechet,
    main,
    recognised,
    require_other,
    style_loss,
    to_prompts,
    to_truth,
)
from pleinair.evals.pocket.oracle import Oracle
from pleinair.evals.realrag.bench import RealImages, features, real_features
from pleinair.tools.pocket.library import write_novel
from pleinair.tools.pocket.training.streams import held_out_rng
from pleinair.tools.pocket.world import SPECIES, random_scene, render
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

POCKET = "local-dir:pocket/encoder"
NAMES = [species.name for species in SPECIES[:6]]
PROMPTS = [f"a photo of a {name}" for name in NAMES]


@pytest.fixture(scope="module")
def encoder() -> OpenClipEncoder:
    return OpenClipEncoder(POCKET)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Dinov2:
    return Dinov2(str(tiny.save_dinov2(tmp_path_factory.mktemp("dinov2"))))


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [render(random_scene(held_out_rng(900 + n), [species])) for n, species in enumerate(SPECIES[:6])]


def distorted(images: list[Image.Image], radius: float) -> list[Image.Image]:
    return [image.filter(ImageFilter.GaussianBlur(radius)) for image in images]


BLURS = (0.5, 2, 6)


def test_an_image_is_most_similar_to_itself_and_less_the_more_it_is_blurred(
    encoder: OpenClipEncoder, dinov2: Dinov2, images: list[Image.Image]
) -> None:
    truth = [[image] for image in images]
    for judge in (encoder, dinov2):
        assert to_truth(judge, images, truth) == pytest.approx([1] * 6, abs=1e-5)
        means = [np.mean(to_truth(judge, distorted(images, radius), truth)) for radius in BLURS]
        assert means == sorted(means, reverse=True)
        assert means[-1] < 0.99999


def test_several_real_images_count_by_their_mean(dinov2: Dinov2, images: list[Image.Image]) -> None:
    first, second, *_ = images
    alone = [to_truth(dinov2, [first], [[real]])[0] for real in (first, second)]
    assert to_truth(dinov2, [first], [[first, second]]) == pytest.approx([sum(alone) / 2])


def test_prompts_are_nearer_to_their_own_images(encoder: OpenClipEncoder, images: list[Image.Image]) -> None:
    right = np.mean(to_prompts(encoder, images, PROMPTS))
    wrong = np.mean(to_prompts(encoder, images, PROMPTS[1:] + PROMPTS[:1]))
    assert right > wrong + 0.2
    assert sum(recognised(encoder, images, PROMPTS)) >= 5
    assert sum(recognised(encoder, images, PROMPTS[1:] + PROMPTS[:1])) <= 1


def test_the_retrievals_encoder_is_no_judge(encoder: OpenClipEncoder, dinov2: Dinov2) -> None:
    require_other(dinov2, encoder.id)
    with pytest.raises(BadInput, match="also did the retrieval"):
        require_other(encoder, encoder.id)


def test_a_folder_without_a_dinov2_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no DINOv2 folder"):
        Dinov2(str(tmp_path))


# Fréchet distance


def normal(n: int, mean: float = 0.0, spread: float = 1.0, dim: int = 4) -> Vectors:
    rows: Vectors = np.random.default_rng(0).normal(mean, spread, (n, dim)).astype(np.float32)
    return rows


def test_equal_sets_have_no_distance_also_with_few_images() -> None:
    assert frechet(normal(50), normal(50)) == pytest.approx(0, abs=1e-6)
    assert frechet(normal(3, dim=16), normal(3, dim=16)) == pytest.approx(0, abs=1e-6)


def test_the_distance_of_moved_and_widened_sets_is_known() -> None:
    assert frechet(normal(50), normal(50) + 0.5) == pytest.approx(4 * 0.25, rel=1e-4)
    rows = normal(50)
    spread = np.cov(rows, rowvar=False).trace()
    assert frechet(rows, 3 * (rows - rows.mean(axis=0)) + rows.mean(axis=0)) == pytest.approx(
        4 * spread, rel=1e-4
    )


def test_it_is_the_published_form() -> None:
    from scipy.linalg import sqrtm

    rows, others = normal(60) @ np.diag([1, 2, 3, 4]), normal(80, 0.3)[::-1] @ np.triu(np.ones((4, 4)))
    first, second = np.cov(rows, rowvar=False), np.cov(others, rowvar=False)
    apart = ((rows.mean(axis=0) - others.mean(axis=0)) ** 2).sum()
    expected = apart + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet(rows, others) == pytest.approx(expected, rel=1e-4)


def test_few_images_of_one_kind_are_further_apart_than_many() -> None:
    rows = normal(2000, dim=16)
    few, many = (frechet(rows[:n], rows[n : 2 * n]) for n in (20, 1000))
    assert few > 5 * many


def test_a_single_image_is_refused() -> None:
    with pytest.raises(BadInput, match="1 and 5 images"):
        frechet(normal(1), normal(5))


# style and the oracle's layers


def test_style_follows_texture_and_not_place(oracle: Oracle, images: list[Image.Image]) -> None:
    maps = oracle.maps(images[0])
    assert style_loss(maps, maps) == 0
    losses = [style_loss(maps, oracle.maps(*distorted(images[:1], radius))) for radius in BLURS]
    assert losses == sorted(losses)
    mirrored = images[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert style_loss(maps, oracle.maps(mirrored)) < losses[-1]


def test_similarity_separates_right_images_from_wrong_ones(
    encoder: OpenClipEncoder, oracle: Oracle, tmp_path: Path, images: list[Image.Image]
) -> None:
    write_novel(tmp_path / "held-out", seed=1, each=2, tiers=("known",))
    library = Library.open(tmp_path / "held-out")
    real_images = RealImages(library, encoder, oracle)
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


# command line


def write(folder: Path, images: list[Image.Image], texts: list[str]) -> Path:
    folder.mkdir()
    lines = []
    for number, (image, text) in enumerate(zip(images, texts, strict=True)):
        image.save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_the_command_writes_every_score(
    tmp_path: Path, images: list[Image.Image], capsys: pytest.CaptureFixture[str], encoder: OpenClipEncoder
) -> None:
    generated, real = (write(tmp_path / name, images, PROMPTS) for name in ("generated", "real"))
    tiny.save_dinov2(tmp_path / "small")
    words = [str(generated), str(real), "--encoder", POCKET, "--dinov2", str(tmp_path / "small")]
    assert main(words) == 0
    page = capsys.readouterr().out
    assert page.count("| 1.000 |") >= 2
    assert "| Fréchet distance, dinov2:small | 0.000 |" in page
    assert f"| prompt recognised, {encoder.id} |" in page
    assert main([*words, "--retriever", encoder.id]) == 1
    assert "also did the retrieval" in capsys.readouterr().err


def test_a_prompt_without_real_images_is_refused(
    tmp_path: Path, images: list[Image.Image], capsys: pytest.CaptureFixture[str]
) -> None:
    generated = write(tmp_path / "generated", images, PROMPTS)
    real = write(tmp_path / "real", images[1:], PROMPTS[1:])
    assert main([str(generated), str(real)]) == 1
    assert f"no image with the text {PROMPTS[0]!r}" in capsys.readouterr().err
