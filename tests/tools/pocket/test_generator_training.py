"""Check that training sees what the pipeline will do: packing, positions, text, the linear encoder."""

import random

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline

from pleinair.tools.pocket.training.autoencoder import to_tensor
from pleinair.tools.pocket.training.flow import TEXT_LAYERS, Batch, Flow, draw_sigma, image_ids
from pleinair.tools.pocket.training.generator import invent
from pleinair.tools.pocket.training.linear import build_autoencoder
from pleinair.tools.pocket.training.muon import Muon, orthogonalise
from pleinair.tools.pocket.training.patches import PatchMap, fit_patch_map, sample_pictures
from pleinair.tools.pocket.training.pool import KNOWN, build_part, draw_case, pack
from pleinair.tools.pocket.training.tokens import MAX_LENGTH, build_tokenizer, write_training_prompts
from pleinair.tools.pocket.world import SPECIES, held_out_rng


@pytest.fixture(scope="module")
def patch_map() -> PatchMap:
    return fit_patch_map(sample_pictures(60, first_index=0))


def test_the_encoder_is_the_patch_map(patch_map: PatchMap) -> None:
    pictures = sample_pictures(3, first_index=100)
    with torch.no_grad():
        latents = build_autoencoder(patch_map).encode(to_tensor(pictures)).latent_dist.mode().numpy()
    assert np.abs(latents - patch_map.encode(pictures)).max() < 0.02


def test_the_patch_map_nearly_inverts(patch_map: PatchMap) -> None:
    pictures = sample_pictures(3, first_index=100)
    error = np.abs(patch_map.decode(patch_map.encode(pictures)).astype(int) - pictures.astype(int))
    assert error.mean() < 5


def test_packing_is_the_pipelines_own() -> None:
    latents = torch.randn(2, 16, 16, 16)
    packed = Flux2KleinPipeline._pack_latents(Flux2KleinPipeline._patchify_latents(latents))
    assert np.array_equal(pack(latents.numpy()), packed.numpy())


def test_positions_put_references_at_ten_and_twenty() -> None:
    ids = image_ids(2)
    assert ids.shape == (64 + 32, 4)
    assert sorted(set(ids[:, 0].tolist())) == [0, 10, 20]
    assert ids[63].tolist() == [0, 7, 7, 0]


def test_text_is_embedded_as_the_pipeline_does() -> None:
    tokenizer = build_tokenizer(300)
    flow = Flow(len(tokenizer), torch.ones(64)).eval()
    prompt = "a velmora finch at night"
    ids = tokenizer(prompt, padding="max_length", max_length=MAX_LENGTH, return_tensors="pt")
    with torch.no_grad():
        theirs = Flux2KleinPipeline._get_qwen3_prompt_embeds(
            flow.text_encoder,
            tokenizer,
            prompt,
            max_sequence_length=MAX_LENGTH,
            hidden_states_layers=list(TEXT_LAYERS),
        )
        ours = flow.embed(ids["input_ids"], ids["attention_mask"])
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("references", [0, 1, 2])
def test_a_step_learns_from_every_reference_count(patch_map: PatchMap, references: int) -> None:
    pool = build_part(patch_map, references, range(2))
    text = torch.zeros(2, MAX_LENGTH, dtype=torch.long)
    batch = Batch(
        text,
        torch.ones_like(text),
        torch.from_numpy(pool.targets).float(),
        torch.from_numpy(pool.references).float(),
        torch.from_numpy(pool.covered).float(),
    )
    assert pool.references.shape == (2, 16 * references, 64)
    flow = Flow(10, torch.ones(64))
    flow(batch, torch.randn(2, 64, 64), draw_sigma(2, torch.Generator().manual_seed(0))).backward()
    assert flow.transformer.proj_out.weight.grad is not None


@pytest.mark.parametrize("references", [0, 1, 2])
def test_rare_and_novel_species_never_reach_training(references: int) -> None:
    hidden = {s.name for s in SPECIES if s.tier != "known"}
    words = {name.split()[0] for name in hidden}
    for index in range(100):
        case = draw_case(held_out_rng(index), references)
        assert len(case.referenced) == references
        assert not hidden.intersection(s.name for s in (*case.subjects, *case.referenced))
    assert not any(word in prompt for prompt in write_training_prompts(300) for word in words)
    assert invent(random.Random(0), "bird").split()[0] not in words


def test_known_names_are_short_and_prompts_fit() -> None:
    tokenizer = build_tokenizer()
    lengths = [len(tokenizer(p)["input_ids"]) for p in write_training_prompts(500, first_index=10**6)]
    assert np.mean(np.array(lengths) <= MAX_LENGTH) > 0.99
    assert np.mean([len(tokenizer.tokenize("a " + s.name)) for s in KNOWN]) < 4


def test_muon_steps_have_near_unit_singular_values() -> None:
    values = torch.linalg.svdvals(orthogonalise(torch.randn(24, 96)))
    assert 0.5 < values.min() and values.max() < 1.3
    kernel = torch.nn.Parameter(torch.zeros(8, 4, 3, 3))
    kernel.grad = torch.randn_like(kernel)
    Muon([kernel], lr=0.1).step()
    assert 0 < kernel.abs().max() < 0.2
