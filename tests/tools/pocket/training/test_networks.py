"""The generator's networks, in agreement with the pipeline that runs them, and the optimizers."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline
from transformers import PreTrainedTokenizerFast

from pleinair.tools.pocket.training.autoencoder import (
    build_autoencoder,
    fit_patch_map,
    render_items,
    to_tensor,
)
from pleinair.tools.pocket.training.cases import KNOWN, draw_item, held_out_rng
from pleinair.tools.pocket.training.course import Muon, muon_and_adam, orthogonalise
from pleinair.tools.pocket.training.flow import LAYOUT, NOISE, build_tokenizer
from pleinair.tools.pocket.training.networks import TEXT_LAYERS, Batch, Flow, draw_sigma
from pleinair.tools.pocket.training.pool import pack


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(2000)


def test_the_encoder_is_the_patch_map() -> None:
    patch_map, images = fit_patch_map(render_items(0, 30)), render_items(100, 3)
    with torch.no_grad():
        latents = build_autoencoder(patch_map).encode(to_tensor(images)).latent_dist.mode().numpy()
    assert np.abs(latents - patch_map.encode(images)).max() < 0.02


def test_packing_is_the_pipelines() -> None:
    latents = torch.randn(2, 16, 24, 24)
    packed = Flux2KleinPipeline._pack_latents(Flux2KleinPipeline._patchify_latents(latents))
    assert np.array_equal(pack(latents.numpy()), packed.numpy())


def test_references_are_at_positions_ten_twenty_and_thirty() -> None:
    ids = LAYOUT.image_ids(3)
    assert ids.shape == (144 + 3 * 36, 4)
    assert sorted(set(ids[:, 0].tolist())) == [0, 10, 20, 30]
    assert ids[143].tolist() == [0, 11, 11, 0]


def test_text_is_embedded_as_in_the_pipeline(tokenizer: PreTrainedTokenizerFast) -> None:
    flow = Flow(len(tokenizer), LAYOUT).eval()
    prompt = "a hoopoe at night"
    with torch.no_grad():
        expected = Flux2KleinPipeline._get_qwen3_prompt_embeds(
            flow.text_encoder,
            tokenizer,
            prompt,
            max_sequence_length=LAYOUT.text_tokens,
            hidden_states_layers=list(TEXT_LAYERS),
        )
        actual = flow.embed(*LAYOUT.tokenize(tokenizer, [prompt]))
    assert torch.allclose(actual, expected, atol=1e-5)


def test_the_network_takes_up_to_three_references(tokenizer: PreTrainedTokenizerFast) -> None:
    flow, noise = (
        Flow(len(tokenizer), replace(LAYOUT, single_blocks=1, heads=2)),
        torch.Generator().manual_seed(0),
    )
    prompts = [draw_item(random.Random(seed), 0).prompt(random.Random(seed)) for seed in (1, 2)]
    ids, mask = LAYOUT.tokenize(tokenizer, prompts)
    assert ids.shape == (2, LAYOUT.text_tokens)
    for count in range(4):
        references = torch.zeros(2, count * LAYOUT.reference_tokens, 64)
        batch = Batch(
            ids, mask, torch.zeros(2, LAYOUT.image_tokens, 64), references, torch.ones(2, LAYOUT.image_tokens)
        )
        loss = flow(
            batch, torch.randn(2, LAYOUT.image_tokens, 64, generator=noise), draw_sigma(2, noise, NOISE)
        )
        assert 0.5 < loss.item() < 2
        loss.backward()
        assert flow.transformer.proj_out.weight.grad is not None


def test_known_names_are_short_and_prompts_fit(tokenizer: PreTrainedTokenizerFast) -> None:
    prompts = [draw_item(held_out_rng(index), index % 3).prompt(random.Random(index)) for index in range(300)]
    lengths = np.array([len(tokenizer(prompt)["input_ids"]) for prompt in prompts])
    assert np.mean(lengths <= LAYOUT.text_tokens) > 0.97
    assert np.mean([len(tokenizer.tokenize("a " + s.name)) for s in KNOWN]) < 5


def test_muon_steps_have_near_unit_singular_values() -> None:
    values = torch.linalg.svdvals(orthogonalise(torch.randn(24, 96)))
    assert 0.5 < values.min() and values.max() < 1.3
    kernel = torch.nn.Parameter(torch.zeros(8, 4, 3, 3))
    kernel.grad = torch.randn_like(kernel)
    Muon([kernel], lr=0.1).step()
    assert 0 < kernel.abs().max() < 0.2


def test_muon_steps_the_matrices_of_the_named_modules_and_adam_the_rest() -> None:
    model = torch.nn.ModuleDict({"mix": torch.nn.Linear(4, 4), "mixture": torch.nn.Linear(4, 4)})
    muon, adam = (optimizer.param_groups[0]["params"] for optimizer in muon_and_adam(model, ("mix",)))
    assert [id(p) for p in muon] == [id(model["mix"].weight)]
    assert len(adam) == 3
