"""Similarity scores on real models with random weights and on images whose order is known."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageFilter
from support import tiny_pipelines as tiny

from pleinair.evals.scores.encoders import DinoEncoder
from pleinair.evals.scores.features import BATCH, Features
from pleinair.evals.scores.items import Generated, Scorer, score
from pleinair.evals.scores.open import open_scorer
from pleinair.evals.scores.similarity import Diversity, ImageSimilarity, Recognition, TextSimilarity
from pleinair.tools.callbacks import no_callback
from pleinair.tools.pocket.catalogue.scenes import Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import SPECIES
from pleinair.tools.pocket.training.cases import held_out_rng
from pleinair.tools.retrieval.encoder import OpenClipEncoder
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

POCKET = "local-dir:pocket/catalogue/encoder"
NAMES = [species.name for species in SPECIES[:6]]
PROMPTS = [f"a photo of a {name}" for name in NAMES]
BLURS = (0.5, 2, 6)


class Counting:
    """Encoder that counts the images it is given, with the largest number at once, and keeps the texts."""

    def __init__(self, encoder: OpenClipEncoder) -> None:
        self._encoder, self.id = encoder, encoder.id
        self.images, self.largest = 0, 0
        self.texts: list[str] = []

    def encode_text(self, texts: Sequence[str]) -> Vectors:
        self.texts += texts
        return self._encoder.encode_text(texts)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        self.images, self.largest = self.images + len(images), max(self.largest, len(images))
        return self._encoder.encode_images(images)


@pytest.fixture(scope="module")
def encoder() -> OpenClipEncoder:
    return OpenClipEncoder(POCKET)


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> DinoEncoder:
    return DinoEncoder("dino", str(tiny.save_dino(tmp_path_factory.mktemp("dino"))))


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> DinoEncoder:
    return DinoEncoder("dinov2", str(tiny.save_dinov2(tmp_path_factory.mktemp("dinov2"))))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One image of each of six species."""
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        render(place_scene(held_out_rng(900 + number), [Subject(SPECIES[number])])).save(path)
    return paths


def blurred(files: list[Path], radius: float, folder: Path) -> list[Path]:
    paths = [folder / f"{radius}-{path.name}" for path in files]
    for path, copy in zip(files, paths, strict=True):
        Image.open(path).filter(ImageFilter.GaussianBlur(radius)).save(copy)
    return paths


def generated(
    images: list[Path], truth: Sequence[Sequence[Path]] = (), prompts: list[str] = PROMPTS
) -> list[Generated]:
    rows = truth or [()] * len(images)
    return [
        Generated(image, prompt, tuple(real), prompt.removeprefix("a photo of a "))
        for image, prompt, real in zip(images, prompts, rows, strict=True)
    ]


def values(scorer: Scorer, items: list[Generated]) -> list[float]:
    result = scorer.score(items, no_callback)
    assert isinstance(result, list)
    return result


def test_an_image_is_most_similar_to_itself_and_less_the_more_it_is_blurred(
    encoder: OpenClipEncoder, dino: DinoEncoder, dinov2: DinoEncoder, files: list[Path], tmp_path: Path
) -> None:
    truth = [[file] for file in files]
    for judge in (encoder, dino, dinov2):
        scorer = ImageSimilarity("", Features(judge, tmp_path))
        assert values(scorer, generated(files, truth)) == pytest.approx([1] * 6, abs=1e-5)
        means = [
            np.mean(values(scorer, generated(blurred(files, radius, tmp_path), truth))) for radius in BLURS
        ]
        assert means == sorted(means, reverse=True)
        assert means[-1] < 0.99999


def test_several_real_images_count_by_their_mean(
    dinov2: DinoEncoder, files: list[Path], tmp_path: Path
) -> None:
    scorer = ImageSimilarity("", Features(dinov2, tmp_path))
    first, second, *_ = files
    both, *alone = values(
        scorer, generated([first] * 3, [[first, second], [first], [second]], prompts=["a", "b", "c"])
    )
    assert both == pytest.approx(sum(alone) / 2)


def test_dino_embeds_an_image_as_its_class_token(
    dino: DinoEncoder, dinov2: DinoEncoder, files: list[Path]
) -> None:
    import torch

    images = [Image.open(file).convert("RGB") for file in files]
    for judge in (dino, dinov2):
        with torch.inference_mode():
            tokens = judge._model(**judge._prepare(images, return_tensors="pt")).last_hidden_state
        first = torch.nn.functional.normalize(tokens[:, 0], dim=-1).numpy()
        mean = torch.nn.functional.normalize(tokens.mean(dim=1), dim=-1).numpy()
        assert np.allclose(judge.encode_images(images), first, atol=1e-6)
        assert not np.allclose(first, mean, atol=1e-3)


def test_prompts_are_nearer_to_their_own_images(
    encoder: OpenClipEncoder, files: list[Path], tmp_path: Path
) -> None:
    features = Features(encoder, tmp_path)
    near, shifted = TextSimilarity("CLIP-T", encoder, features), [*PROMPTS[1:], PROMPTS[0]]
    right, wrong = (np.mean(values(near, generated(files, prompts=texts))) for texts in (PROMPTS, shifted))
    assert right > wrong + 0.2
    known = Recognition(encoder, features)
    assert sum(values(known, generated(files))) >= 5
    assert sum(values(known, generated(files, prompts=shifted))) <= 1
    assert known.note == "of 6 classes"


def test_a_class_is_recognised_by_the_papers_prompt(
    encoder: OpenClipEncoder, files: list[Path], tmp_path: Path
) -> None:
    judge = Counting(encoder)
    values(Recognition(judge, Features(judge, tmp_path)), generated(files))
    assert judge.texts == [f"A photo of a {name}" for name in NAMES]


def test_a_recognition_needs_classes(encoder: OpenClipEncoder, files: list[Path], tmp_path: Path) -> None:
    features = Features(encoder, tmp_path)
    scorer = Recognition(encoder, features)
    with pytest.raises(BadInput, match="the images have 0 classes"):
        score([Generated(files[0], "a bird")], [scorer])
    with pytest.raises(BadInput, match="the images have 1 classes"):
        score([Generated(files[0], "a bird", group="bird")], [scorer])
    assert not (tmp_path / "vectors.sqlite").exists()
    among = Recognition(encoder, features, NAMES)
    assert values(among, generated(files[:1], prompts=PROMPTS[:1])) == [1.0]
    assert among.note == "of 6 classes"


def test_images_of_a_prompt_are_diverse_if_they_differ(
    encoder: OpenClipEncoder, files: list[Path], tmp_path: Path
) -> None:
    scorer = Diversity(Features(encoder, tmp_path))
    same = values(scorer, generated([files[0]] * 3, prompts=["a bird"] * 3))
    assert same == pytest.approx([0] * 3, abs=1e-5)
    vectors = encoder.encode_images([Image.open(file) for file in files[:3]])
    cosines = vectors @ vectors.T
    *some, alone = values(scorer, generated(files[:4], prompts=["a bird"] * 3 + ["a cat"]))
    assert some == pytest.approx([1 - (cosines[n].sum() - 1) / 2 for n in range(3)], abs=1e-5)
    assert isnan(alone)


# the cache


def test_a_real_image_is_embedded_once_however_often_it_is_compared(
    encoder: OpenClipEncoder, files: list[Path], tmp_path: Path
) -> None:
    judge = Counting(encoder)
    items = generated(files * 5, [files] * 30, prompts=PROMPTS * 5)
    scorer = ImageSimilarity("", Features(judge, tmp_path))
    first = values(scorer, items)
    assert judge.images == 6  # 30 generated × 6 real, all of six files
    assert values(ImageSimilarity("", Features(judge, tmp_path)), items) == first
    assert judge.images == 6


def test_a_changed_file_is_embedded_again(
    encoder: OpenClipEncoder, files: list[Path], tmp_path: Path
) -> None:
    judge, copy = Counting(encoder), tmp_path / "copy.png"
    features = Features(judge, tmp_path)
    for file in files[:2]:
        copy.write_bytes(file.read_bytes())
        assert np.allclose(features.rows([copy])[0], encoder.encode_images([Image.open(file)])[0], atol=1e-5)
    assert judge.images == 2


def test_images_are_open_in_small_batches(
    encoder: OpenClipEncoder, files: list[Path], tmp_path: Path
) -> None:
    judge, copies = Counting(encoder), [tmp_path / f"{number}.png" for number in range(2 * BATCH + 1)]
    for number, copy in enumerate(copies):
        copy.write_bytes(files[number % 6].read_bytes())
    Features(judge, tmp_path).add(copies)
    assert (judge.images, judge.largest) == (2 * BATCH + 1, BATCH)
    large = Counting(encoder)
    Features(large, tmp_path / "other", pixels=3 * 96 * 96).add(copies)
    assert (large.images, large.largest) == (2 * BATCH + 1, 4)


# the measure


def test_scores_have_intervals_over_groups_and_missing_values(
    encoder: OpenClipEncoder, files: list[Path], tmp_path: Path
) -> None:
    features = Features(encoder, tmp_path)
    items = generated(files * 2, [files[:2]] * 12, prompts=PROMPTS * 2)
    steps: list[tuple[str, int, int]] = []
    text, image, diverse = score(
        items,
        [
            TextSimilarity("CLIP-T", encoder, features),
            ImageSimilarity("CLIP-I", features),
            Diversity(features),
        ],
        on_progress=lambda name, done, total: steps.append((name, done, total)),
    )
    assert (text.n, image.n, image.real, text.real) == (12, 12, 2, 0)
    assert text.interval and text.interval[0] < text.mean < text.interval[1]
    assert steps[0][1:] == (0, 6) and (text.name, 6, 6) in steps
    assert diverse.mean == pytest.approx(0, abs=1e-5)
    lonely = score([*items, Generated(files[0], "alone", group="x")], [Diversity(features)])[0]
    assert (lonely.n, len(lonely.values)) == (12, 13)
    assert lonely.note == "1 images have no value"


def test_what_is_missing_is_told_before_anything_is_read(
    dino: DinoEncoder, files: list[Path], tmp_path: Path
) -> None:
    scorer = ImageSimilarity("DINO", Features(dino, tmp_path))
    cases: tuple[tuple[list[Generated], str], ...] = (
        ([], "no generated images"),
        ([Generated(files[0], " ")], "has no prompt"),
        ([Generated(tmp_path / "no.png", "a bird")], "is not a file"),
        (
            [Generated(files[0], "a bird")],
            r"1 of 1 images have no real images, such as .*0\.png \('a bird'\)",
        ),
        (
            [Generated(files[0], "a", (files[0],), "g"), Generated(files[0], "a", (files[0],))],
            "for all, or for none",
        ),
    )
    for items, message in cases:
        with pytest.raises(BadInput, match=message):
            score(items, [scorer])
    assert not (tmp_path / "vectors.sqlite").exists()


# opening


def test_scorers_open_by_their_names(tmp_path: Path) -> None:
    dino, dinov2 = str(tiny.save_dino(tmp_path / "small")), str(tiny.save_dinov2(tmp_path / "small2"))
    texts = (
        f"clip:{POCKET}",
        f"siglip:{POCKET}",
        f"dino:{dino}",
        f"dinov2:{dinov2}",
        f"accuracy:clip:{POCKET}",
        f"diversity:dino:{dino}",
    )
    names = [
        [scorer.name.partition(",")[0] for scorer in open_scorer(text, retriever="", cache=tmp_path)]
        for text in texts
    ]
    assert names == [
        ["CLIP-T", "CLIP-I"],
        ["SigLIP-T", "SigLIP-I"],
        ["DINO"],
        ["DINOv2"],
        ["accuracy"],
        ["diversity"],
    ]


class _Touch:
    """Object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


def test_dinos_published_weights_are_a_pickle_and_are_read_as_data(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tiny.save_dino(tmp_path / "dino")
    (expected,) = DinoEncoder("dino", str(folder)).encode_images([Image.new("RGB", (32, 32), "red")])
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    (vector,) = DinoEncoder("dino", str(folder)).encode_images([Image.new("RGB", (32, 32), "red")])
    assert np.array_equal(vector, expected)
    torch.save({"weights": _Touch(tmp_path / "touched")}, folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match="is no such folder: Weights only load failed"):
        DinoEncoder("dino", str(folder))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("text", ["", "clip:", "eye:x", "accuracy:dino:x", "diversity:fid"])
def test_a_form_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"is no scorer. Accepted:\n  clip:MODEL=WEIGHTS"):
        open_scorer(text, retriever="")


def test_a_folder_of_another_model_is_refused_with_what_to_fetch(tmp_path: Path) -> None:
    dinov2 = str(tiny.save_dinov2(tmp_path / "small"))
    with pytest.raises(BadInput, match="model of the type 'dinov2', not 'vit'"):
        open_scorer(f"dino:{dinov2}", retriever="")
    (tmp_path / "empty").mkdir()
    for folder in ("none", "empty"):
        with pytest.raises(BadInput) as error:
            open_scorer(f"dino:{tmp_path / folder}", retriever="")
        assert "Fetch facebook/dino-vits16" in error.value.remedy


# the retrieval's own encoder


@pytest.mark.parametrize(
    ("text", "retriever"),
    [
        ("ViT-B-32=openai", "ViT-B-32/openai"),
        ("ViT-B-32=openai@" + "0" * 40, "open_clip:ViT-B-32/openai@123456789abc"),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip:ViT-B-32/laion2b_s34b_b79k@123456789abc"),
        (
            "ViT-B-32=laion2b_s34b_b79k",
            "reflective:0123456789ab+open_clip:ViT-B-32/laion2b_s34b_b79k@123456789abc",
        ),
        (POCKET, POCKET),
        (POCKET, "open_clip:other@{digest}"),
        (POCKET, "reflective:0123456789ab+open_clip:other@{digest}"),
    ],
)
def test_the_retrievals_encoder_is_refused(text: str, retriever: str, encoder: OpenClipEncoder) -> None:
    retriever = retriever.format(digest=encoder.id[-12:])
    for form in ("clip", "siglip", "accuracy:clip", "diversity:clip"):
        with pytest.raises(BadInput, match="also did the retrieval"):
            open_scorer(f"{form}:{text}", retriever=retriever)


def test_the_same_weights_in_another_folder_are_refused(tmp_path: Path) -> None:
    import shutil

    from pleinair.tools.model_files.folders import locate

    shutil.copytree(locate("pocket/catalogue/encoder"), tmp_path / "copy")
    with pytest.raises(BadInput, match="also did the retrieval"):
        open_scorer(f"clip:local-dir:{tmp_path / 'copy'}", retriever=POCKET)


def test_another_encoder_scores_and_the_same_one_if_asked_for(
    encoder: OpenClipEncoder, tmp_path: Path
) -> None:
    other = "open_clip:ViT-B-32/openai@123456789abc"
    assert len(open_scorer(f"clip:{POCKET}", retriever=other, cache=tmp_path)) == 2
    assert len(open_scorer(f"clip:{POCKET}", retriever=encoder.id, allow_same=True, cache=tmp_path)) == 2
