"""The open_clip encoder with the pocket model: vectors, id, precision, image preparation and refusals."""

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image, ImageChops
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize
from torchvision.transforms.v2 import functional

from pleinair.evals.experiments.decoding import embed, models, photo
from pleinair.tools.images.reading import read_picture
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.catalogue.captions import describe
from pleinair.tools.pocket.catalogue.scenes import Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import SPECIES, Species
from pleinair.tools.pocket.training.cases import held_out_rng
from pleinair.tools.retrieval import encoder as encoder_module
from pleinair.tools.retrieval.encoder import OpenClipEncoder, Preparation, find_precision
from pleinair.tools.types import BadInput

MODEL = "local-dir:pocket/catalogue/encoder"
NOISE = [Image.effect_noise((side, 90), 60 + side).convert("RGB") for side in range(30, 90, 5)]


@pytest.fixture(scope="module")
def encoder() -> OpenClipEncoder:
    return OpenClipEncoder(MODEL, device="cpu", batch=32)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Species, Image.Image]]:
    """Render two held-out images of every species."""
    species = [s for s in SPECIES for _ in range(2)]
    scenes = [place_scene(held_out_rng(50_000 + i), [Subject(s)]) for i, s in enumerate(species)]
    return [(s, render(scene)) for s, scene in zip(species, scenes, strict=True)]


def best_for(
    encoder: OpenClipEncoder, texts: list[str], scenes: list[tuple[Species, Image.Image]]
) -> list[str]:
    images = encoder.encode_images([image for _, image in scenes])
    return [scenes[i][0].name for i in (encoder.encode_text(texts) @ images.T).argmax(1)]


@pytest.mark.parametrize("tier", ["known", "rare"])
def test_a_name_is_nearest_to_its_images(
    encoder: OpenClipEncoder, scenes: list[tuple[Species, Image.Image]], tier: str
) -> None:
    names = [s.name for s in SPECIES if s.tier == tier]
    best = best_for(encoder, [f"a photo of a {name}" for name in names], scenes)
    assert np.mean([match == name for match, name in zip(best, names, strict=True)]) >= 0.95


def test_a_description_is_nearest_to_its_novel_species_far_more_often_than_by_chance(
    encoder: OpenClipEncoder, scenes: list[tuple[Species, Image.Image]]
) -> None:
    novel = [s for s in SPECIES if s.tier == "novel"]
    best = best_for(encoder, [describe(held_out_rng(0), s).words for s in novel], scenes)
    assert np.mean([match == s.name for match, s in zip(best, novel, strict=True)]) > 0.2


def test_rows_are_unit_vectors_of_float32(encoder: OpenClipEncoder) -> None:
    texts = encoder.encode_text(["blue jay", "a red car"])
    images = encoder.encode_images([Image.new("RGB", (64, 64), "red"), Image.new("L", (200, 90))])
    for vectors in (texts, images):
        assert vectors.shape == (2, 128)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_empty_input_has_no_rows(encoder: OpenClipEncoder) -> None:
    assert encoder.encode_text([]).shape == (0, 128)
    assert encoder.encode_images([]).shape == (0, 128)


def test_batches_and_cache_change_nothing(encoder: OpenClipEncoder) -> None:
    small = OpenClipEncoder(MODEL, device="cpu", batch=1)
    texts = ["a red car", "a blue fish", "a red car"]
    first = encoder.encode_text(texts)
    np.testing.assert_allclose(small.encode_text(texts), first, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode_text(texts), first)
    np.testing.assert_array_equal(first[0], first[2])


def test_more_texts_than_the_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "REMEMBERED", 2)
    encoder = OpenClipEncoder(MODEL, device="cpu")
    texts = ["one", "two", "three"]
    np.testing.assert_allclose(encoder.encode_text(texts), encoder.encode_text(texts), atol=1e-5)


@pytest.mark.usefixtures("hasty")
def test_threads_share_an_encoder(encoder: OpenClipEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "REMEMBERED", 4)
    texts = [f"a {colour} bird {place}" for colour in ("red", "teal") for place in "abcdefgh"] * 6
    expected = {text: encoder.encode_text([text])[0] for text in texts}
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda text: encoder.encode_text([text])[0], texts))
    np.testing.assert_allclose(rows, [expected[text] for text in texts], atol=1e-5)


@pytest.mark.usefixtures("hasty")
def test_empty_input_and_cached_texts_cause_no_deadlock() -> None:
    encoder, gate = OpenClipEncoder(MODEL), threading.Barrier(2)
    encoder.encode_text(["a red bird"])

    def begin(encode: Callable[[], object]) -> None:
        gate.wait()
        encode()

    calls = [lambda: encoder.encode_images([]), lambda: encoder.encode_text(["a red bird"])]
    threads = [threading.Thread(target=begin, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive()


def test_a_truncated_text_is_logged_once_even_if_it_left_the_cache(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "REMEMBERED", 1)
    encoder, long = OpenClipEncoder(MODEL, device="cpu"), "a red car " * 30
    with caplog.at_level(logging.WARNING):
        for text in (long, "a striped teal bird with violet wings to the left of a red car", long):
            encoder.encode_text([text])
    (message,) = caplog.messages
    assert message.startswith("truncated to the encoder's 40 tokens: 'a red car a red car")


def test_the_id_has_model_and_weights_but_no_path(encoder: OpenClipEncoder) -> None:
    assert encoder.id.startswith("open_clip:encoder@")
    assert str(SHIPPED) not in encoder.id
    assert encoder.id == OpenClipEncoder(f"local-dir:{SHIPPED / 'catalogue/encoder'}", device="cpu").id


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "local-dir:nowhere"}, "nowhere"),
        ({"revision": "openai"}, "weights of its own; leave it empty"),
        ({"model": "ViT-B-32"}, "Set revision to one of"),
        ({"model": "ViT-B-32", "revision": "no-such-tag"}, "no-such-tag"),
        ({"model": "no-such-model"}, "no-such-model"),
        ({"batch": 0}, "encoder.batch = 0"),
        ({"precision": "int1"}, "encoder.precision = 'int1': must be '', 'float32'"),
        ({"threads": 0}, "encoder.threads = 0: must be at least 1"),
        ({"jpeg_decoder": "gpu"}, "encoder.jpeg_decoder = 'gpu': must be 'sandbox' or 'cuda'"),
    ],
)
def test_unusable_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        OpenClipEncoder(**{"model": MODEL} | arguments)


def test_what_compiles_and_decodes_is_checked_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder_module, "_load", pytest.fail)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="encoder.jpeg_decoder = 'cuda': torch finds no CUDA"):
        OpenClipEncoder(MODEL, jpeg_decoder="cuda")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BadInput, match="encoder.compile = true: on the CPU it needs a C\\+\\+ compiler"):
        OpenClipEncoder(MODEL, device="cpu", compile=True)


def test_a_tower_that_torch_cannot_compile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/bin/true")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/bin/false"))
    encoder = OpenClipEncoder(MODEL, device="cpu", compile=True)
    with pytest.raises(BadInput, match="encoder.compile = true: torch cannot compile local-dir:pocket"):
        encoder.encode_images(NOISE[:1])
    assert encoder.encode_text(["a finch"]).shape == (1, 128)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    config = json.loads((SHIPPED / "encoder" / "open_clip_config.json").read_text(encoding="utf-8"))
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BadInput, match="cannot load"):
        OpenClipEncoder(f"local-dir:{tmp_path}")


AVX512, AMX = "_is_avx512_bf16_supported", "_is_amx_tile_supported"


@pytest.mark.parametrize(("supported", "expected"), [(True, "bfloat16"), (False, "float32")])
@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_bfloat16_is_used_if_the_device_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, device: str, supported: bool, expected: str
) -> None:
    for name in (AVX512, AMX):
        monkeypatch.setattr(torch.cpu, name, lambda: supported and device == "cpu")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported and device != "cpu")
    assert find_precision(device) == expected
    assert find_precision("mps") == "float32"


@pytest.mark.parametrize("name", [AVX512, AMX])
def test_either_instruction_set_suffices(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for query in (AVX512, AMX):
        monkeypatch.setattr(torch.cpu, query, lambda supported=query == name: supported)
    assert find_precision("cpu") == "bfloat16"
    monkeypatch.delattr(torch.cpu, name)
    assert find_precision("cpu") == "float32"


def test_bfloat16_has_nearly_the_same_vectors_under_the_same_id() -> None:
    full, rounded = (OpenClipEncoder(MODEL, device="cpu", precision=p) for p in ("float32", "bfloat16"))
    assert rounded.id == full.id
    texts = ["a red car", "blue jay", "a blue fish at night"]
    for actual, expected in (
        (rounded.encode_text(texts), full.encode_text(texts)),
        (rounded.encode_images(NOISE), full.encode_images(NOISE)),
    ):
        assert not np.array_equal(actual, expected)
        np.testing.assert_allclose(np.linalg.norm(actual, axis=1), 1, atol=1e-5)
        assert np.einsum("nd,nd->n", actual, expected).min() > 0.999


def supports_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (AVX512, AMX):
        monkeypatch.setattr(torch.cpu, name, lambda: True)


def test_only_the_images_of_a_small_model_are_rounded_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    supports_bfloat16(monkeypatch)
    chosen, full, half = (OpenClipEncoder(MODEL, "", "cpu", 64, p) for p in ("", "float32", "bfloat16"))
    assert chosen.precision == "bfloat16"
    texts = ["a red car", "blue jay", "a blue fish at night"]
    assert np.array_equal(chosen.encode_text(texts), full.encode_text(texts))
    assert np.array_equal(chosen.encode_images(NOISE), half.encode_images(NOISE))
    assert not np.array_equal(chosen.encode_images(NOISE), full.encode_images(NOISE))


def test_bfloat16_has_nearly_the_vectors_of_a_random_vit_b_32() -> None:
    """Three layers of twelve, as a test of the arithmetic; evals/LOG.md has the figure of all."""
    torch.manual_seed(0)
    config = open_clip.get_model_config("ViT-B-32")
    vision = open_clip.model._build_vision_tower(512, config["vision_cfg"] | {"layers": 3}).eval()
    pixels = torch.stack([open_clip.image_transform(224, is_train=False)(image) for image in NOISE])
    with torch.inference_mode():
        full = torch.nn.functional.normalize(vision(pixels))
        half = torch.nn.functional.normalize(vision.bfloat16()(pixels.bfloat16()).float())
    assert float((full * half).sum(dim=1).min()) > 0.999


def test_images_are_embedded_in_parts_that_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, parts = OpenClipEncoder(MODEL, device="cpu", precision="float32"), list[tuple[int, int]]()
    embed, before = encoder._embed_images, torch.get_num_threads()
    images = NOISE * 3

    def record(group: Any) -> Any:
        parts.append((len(group), torch.get_num_threads()))
        return embed(group)

    alone = encoder.encode_images(images[:7])
    monkeypatch.setattr(encoder, "_embed_images", record)
    torch.set_num_threads(3)
    try:
        vectors = encoder.encode_images(images)
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3  # another thread is not slowed down
        assert sorted(parts) == [(12, 1)] * 3
        parts.clear()
        monkeypatch.setattr(encoder, "_batch", 8)
        encoder.encode_images(images)
        assert sorted(parts) == [(6, 1)] * 6  # no short one at the end, for which others would wait
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(vectors[:7], alone, atol=1e-5)
    assert vectors.shape == (36, 128)


def test_the_number_of_threads_changes_nothing() -> None:
    single, several = (OpenClipEncoder(MODEL, device="cpu", threads=n) for n in (1, 7))
    np.testing.assert_array_equal(single.encode_images(NOISE), several.encode_images(NOISE))


@pytest.fixture(scope="module")
def towers() -> dict[str, tuple[Any, Any]]:
    """Return the trained pocket encoder, and ViT-B/32's transform before a small random tower."""
    return models()


@pytest.fixture
def fast_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Record the images that are prepared without the model's own transform."""
    calls: list[tuple[Any, ...]] = []
    resize = functional.resize

    def record(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return resize(*arguments, **options)

    monkeypatch.setattr(functional, "resize", record)
    return calls


def photograph(size: tuple[int, int]) -> Image.Image:
    image = read_picture(photo(1024, 768, "PNG")).resize(size, Image.Resampling.LANCZOS)
    return ImageChops.offset(image, 7)


SIZES = [(64, 64), (65, 64), (512, 384), (1024, 768), (90, 320), (32, 32), (64, 640)]
LEVEL = 1 / 255 / 0.25  # of a colour, after the smallest standard deviation


@pytest.mark.parametrize("name", ["pocket", "ViT-B/32-like"])
@pytest.mark.parametrize("size", SIZES)
def test_fast_preparation_has_the_vectors_of_the_models_transform_up_to_rounding(
    towers: dict[str, tuple[Any, Any]], name: str, size: tuple[int, int], fast_calls: list[tuple[Any, ...]]
) -> None:
    transform, model = towers[name]
    image = photograph(size)
    expected, tensor = transform(image), Preparation(transform)(image)
    assert len(fast_calls) == 1
    assert (tensor.shape, tensor.dtype) == (expected.shape, torch.float32)
    assert float((tensor - expected).abs().max()) < 3 * LEVEL
    first, second = embed(model, torch.stack([expected, tensor]))
    assert float(first @ second) > 0.999


def test_an_image_of_the_models_size_is_not_resampled(towers: dict[str, tuple[Any, Any]]) -> None:
    transform, _ = towers["pocket"]
    image = photograph((64, 64))
    assert torch.allclose(Preparation(transform)(image), transform(image), atol=1e-6)


USUAL = open_clip.image_transform(32, is_train=False)
UNKNOWN = {
    "no list of steps": lambda image: torch.zeros(3, 4, 4),
    "another order": Compose([CenterCrop(16), *USUAL.transforms]),
    "another resize": Compose([Resize(32, InterpolationMode.NEAREST), *USUAL.transforms[1:]]),
    "a step of another kind": Compose([*USUAL.transforms, Normalize((0, 0, 0), (1, 1, 1))]),
    "training": open_clip.image_transform(32, is_train=True),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_transform_is_used_itself(name: str, fast_calls: list[tuple[Any, ...]]) -> None:
    image = photograph((64, 48))
    torch.manual_seed(0)
    expected = UNKNOWN[name](image)
    torch.manual_seed(0)
    assert np.array_equal(Preparation(UNKNOWN[name])(image), expected)
    assert not fast_calls
