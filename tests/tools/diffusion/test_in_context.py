"""The real loading and calling code on a random `Flux2KleinPipeline` that the test makes and saves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from pleinair.tools.diffusion.in_context import InContext
from pleinair.tools.types import BadInput, Cancelled, Request


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "finch": 2, "coupe": 3}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", unk_token="<pad>")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a pipeline of random weights: 16-pixel tokens of an untrained two-block autoencoder."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=4, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, head_dim=8, max_position_embeddings=16,
    )  # fmt: skip
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLFlux2(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        ),
        text_encoder=Qwen3ForCausalLM(config),
        tokenizer=tiny_tokenizer(),
        transformer=Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
        ),
        is_distilled=True,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(path, safe_serialization=True)
    return path


def engine(folder: Path) -> InContext:
    return InContext(
        str(folder),
        slots=2,
        height=32,
        width=32,
        num_inference_steps=3,
        reference_size=16,
        max_sequence_length=8,
        text_encoder_out_layers=(0, 1),
    )


def request(seed: int = 0) -> Request:
    return Request(
        prompt="a finch", height=32, width=32, num_inference_steps=3, guidance_scale=1.0, seed=seed
    )


def quiet(done: int, total: int) -> None:
    pass


def draw(generator: InContext, seed: int = 0, images: Sequence[Image.Image] = ()) -> np.ndarray:
    return np.asarray(generator.generate(request(seed), images, quiet))


REFERENCES = [Image.radial_gradient("L").convert("RGB"), Image.linear_gradient("L").convert("RGB")]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_draws_with_any_number_of_references(folder: Path, count: int) -> None:
    assert draw(engine(folder), images=REFERENCES[:count]).shape == (32, 32, 3)


def test_the_picture_follows_seed_and_references(folder: Path) -> None:
    generator = engine(folder)
    first = draw(generator)
    assert np.array_equal(first, draw(generator))
    assert not np.array_equal(first, draw(generator, seed=1))
    assert not np.array_equal(first, draw(generator, images=REFERENCES[:1]))


def test_cancelling_leaves_the_next_picture_as_it_was(folder: Path) -> None:
    generator = engine(folder)
    before, seen = draw(generator), []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        generator.generate(request(), (), stop)
    assert seen == [(1, 3), (2, 3)]
    assert np.array_equal(before, draw(generator))


def test_the_engine_is_named_by_its_weights(folder: Path) -> None:
    assert engine(folder).capabilities.id.startswith(f"in_context:{folder}@")


def test_a_folder_without_a_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="model_index.json"):
        InContext(str(tmp_path))
    with pytest.raises(BadInput, match="No model folder"):
        InContext(str(tmp_path / "nowhere"))
