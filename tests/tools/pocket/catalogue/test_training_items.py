"""Tests of the catalogue world's training items, shards and network."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pleinair.tools.pocket.catalogue.scenes import render
from pleinair.tools.pocket.catalogue.species import BY_NAME, SPECIES
from pleinair.tools.pocket.training.autoencoder import fit_patch_map
from pleinair.tools.pocket.training.catalogue import pool
from pleinair.tools.pocket.training.catalogue.cases import draw_item, held_out_rng, training_rng
from pleinair.tools.pocket.training.catalogue.flow import LAYOUT, NOISE, build_tokenizer
from pleinair.tools.pocket.training.networks import Batch, Flow, draw_sigma


def test_neither_a_rare_nor_a_novel_look_is_in_the_training() -> None:
    hidden = {(s.kind, tuple(sorted(s.looks.items()))) for s in SPECIES if s.tier != "known"}
    for index in range(400):
        item = draw_item(training_rng(index), index % 4)
        drawn = [subject.species for subject in item.scene.subjects]
        assert not hidden & {(s.kind, tuple(sorted(s.looks.items()))) for s in (*drawn, *item.referenced)}
        names = [BY_NAME[m.name].tier for m in item.request.mentions if m.name in BY_NAME]
        assert "novel" not in names


def test_references_are_in_the_order_of_their_subjects() -> None:
    for index in range(200):
        item = draw_item(training_rng(index), 2)
        drawn = [subject.species for subject in item.scene.subjects]
        assert [drawn.index(species) for species in item.referenced] == sorted(
            drawn.index(species) for species in item.referenced
        )


def test_held_out_items_are_none_of_the_training() -> None:
    assert draw_item(held_out_rng(0), 0) != draw_item(training_rng(0), 0)


def test_a_shard_holds_tokens_prompts_and_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SHARD", 3)
    images = [draw_item(training_rng(index), 0).scene for index in range(4)]
    fitted = fit_patch_map(np.stack([np.asarray(render(scene)) for scene in images]))
    np.savez(tmp_path / "patch_map.npz", basis=fitted.basis, mean=fitted.mean, scale=fitted.scale)
    number = next(n for n in range(9) if pool.reference_count(n) == 2)
    pool.render_shard(tmp_path, number)
    shard = pool.load_shard(next((tmp_path / "shards").glob("*-2.npz")))
    assert shard.targets.shape == (3, LAYOUT.image_tokens, 64)
    assert shard.references.shape == (3, 2 * LAYOUT.reference_tokens, 64)
    assert shard.covered.shape == (3, LAYOUT.image_tokens)
    assert [len(prompts) for prompts in shard.prompts] == [4, 4, 4]


def test_the_network_takes_up_to_three_references() -> None:
    tokenizer = build_tokenizer(50)
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
