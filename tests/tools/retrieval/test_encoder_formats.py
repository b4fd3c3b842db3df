"""The open_clip encoder with tiny untrained models of SigLIP's and CLIP's architecture."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from support.fake_hub import COMMIT, cached
from support.tiny_clip import CLIP, WIDTH, save

from pleinair.tools.model_files.open_clip import hub_location
from pleinair.tools.retrieval.encoder import OpenClipEncoder

CONTEXT = 8
WORDS = ["</s>", "<unk>", "a", "red", "car", "blue", "fish"]
MODEL = {  # as open_clip's ViT-B-16-SigLIP, but small
    "embed_dim": WIDTH,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 160,
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": len(WORDS),
        "hf_tokenizer_name": "here",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": WIDTH,
        "heads": 2,
        "layers": 1,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    },
}


def save_tokenizer(folder: Path) -> None:
    """Save a tokenizer of words that ends and pads with the same token, as SigLIP's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: id for id, word in enumerate(WORDS)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", WORDS.index("</s>"))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("siglip")
    save_tokenizer(place)
    assert save(place, MODEL, "CustomTextCLIP").logit_bias is not None
    return place


@pytest.fixture(scope="module")
def encoder(folder: Path) -> OpenClipEncoder:
    return OpenClipEncoder(f"local-dir:{folder}", device="cpu")


def test_texts_and_images_share_a_space_of_unit_vectors(encoder: OpenClipEncoder) -> None:
    texts = encoder.encode_text(["a red car", "a blue fish"])
    images = encoder.encode_images([Image.new("RGB", (40, 90), "red"), Image.effect_noise((64, 64), 90)])
    for rows in (texts, images):
        assert rows.shape == (2, WIDTH)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        assert abs(rows[0] @ rows[1]) < 0.9999


def test_case_and_punctuation_make_no_difference(encoder: OpenClipEncoder) -> None:
    plain, marked = encoder.encode_text(["a red car", "A red, car!"])
    np.testing.assert_allclose(plain, marked, atol=1e-6)


def test_a_long_text_is_truncated_and_logged(
    encoder: OpenClipEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        encoder.encode_text(["a red car " * 3, "a red car a red car a", "a red car a blue fish a car"])
    assert [record.args for record in caplog.records] == [
        (CONTEXT, "a red car " * 3),
        (CONTEXT, "a red car a blue fish a car"),
    ]


def test_the_id_depends_on_the_weights(folder: Path, encoder: OpenClipEncoder, tmp_path: Path) -> None:
    import shutil

    other = shutil.copytree(folder, tmp_path / folder.name)
    assert OpenClipEncoder(f"local-dir:{other}", device="cpu").id == encoder.id
    torch.manual_seed(1)
    weights = {name: torch.rand_like(tensor) for name, tensor in encoder._model.state_dict().items()}
    save_file(weights, other / "open_clip_model.safetensors")
    assert OpenClipEncoder(f"local-dir:{other}", device="cpu").id != encoder.id


def test_a_caption_over_clips_77_tokens_is_truncated_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, CLIP, "CLIP")
    clip = OpenClipEncoder(f"local-dir:{tmp_path}", device="cpu")
    with caplog.at_level(logging.WARNING):
        rows = clip.encode_text(["cat " * 75, "cat " * 76, "a dog's bowl " * 40])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    truncated = [record.args for record in caplog.records if record.args]
    assert truncated == [(77, "cat " * 76), (77, "a dog's bowl " * 40)]
    assert clip.encode_images([Image.new("L", (50, 70))]).shape == (1, WIDTH)


@pytest.mark.parametrize(("tag", "is_quick"), [("openai", True), ("laion2b_s34b_b79k", False)])
def test_a_tags_activation_is_used_whatever_the_folders_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str, is_quick: bool
) -> None:
    """OpenAI's weights were trained with QuickGELU, which open_clip's ViT-B-32 does not have by itself."""
    import open_clip

    place = tmp_path / "model"
    place.mkdir()
    save(place, CLIP, "CLIP")
    hub_id, _ = hub_location({"model": "ViT-B-32", "revision": tag})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cached(tmp_path / "hub", hub_id, {path.name: path.read_bytes() for path in place.iterdir()})
    encoder = OpenClipEncoder("ViT-B-32", tag, device="cpu", commit=COMMIT)
    model = open_clip.create_model(f"local-dir:{place}", force_quick_gelu=is_quick).eval()
    expected = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(["a finch"]), normalize=True)
    np.testing.assert_allclose(encoder.encode_text(["a finch"]), expected.detach().numpy(), atol=1e-6)
    other = open_clip.create_model(f"local-dir:{place}", force_quick_gelu=not is_quick).eval()
    different = other.encode_text(open_clip.get_tokenizer("ViT-B-32")(["a finch"]), normalize=True)
    assert np.abs(encoder.encode_text(["a finch"]) - different.detach().numpy()).max() > 1e-4
