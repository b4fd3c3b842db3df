"""The measures of the pocket generator: its cases, and the error of its autoencoder."""

import pytest
import torch

from pleinair.evals.pocket.generator import CASES
from pleinair.tools.diffusion.in_context import load
from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.training.autoencoder import mean_absolute_error
from pleinair.tools.pocket.training.cases import held_out_rng


@pytest.mark.parametrize(
    ("case", "tiers", "referenced"),
    [
        ("known species by name", ["known"], []),
        ("rare species by name, no reference", ["rare"], []),
        ("rare species, one reference", ["rare"], ["rare"]),
        ("novel species, one reference", ["novel"], ["novel"]),
        ("two species, one of them rare with a reference, both right", ["known", "rare"], ["rare"]),
        ("three species, one of them rare with a reference, all right", ["known", "known", "rare"], ["rare"]),
    ],
)
def test_a_case_has_species_of_its_tiers(case: str, tiers: list[str], referenced: list[str]) -> None:
    draw_case, _ = CASES[case]
    drawn = [draw_case(held_out_rng(index)) for index in range(30)]
    assert all(sorted(s.tier for s in species) == tiers for species, _ in drawn)
    assert all([s.tier for s in shown] == referenced for _, shown in drawn)
    assert all(s in species for species, shown in drawn for s in shown)
    assert len({species[0].name for species, _ in drawn}) > 10


def test_every_measured_case_has_a_bar() -> None:
    assert all(bar.startswith((">= ", "<= ")) for _, bar in CASES.values())


def test_the_error_of_the_autoencoder_is_in_steps_of_a_byte() -> None:
    vae = load(SHIPPED / "catalogue" / "generator", "cpu").vae
    trained = mean_absolute_error(vae, 3)
    assert 0 < trained < 10
    with torch.no_grad():
        vae.decoder.conv_out.weight.zero_()
    assert mean_absolute_error(vae, 3) > 20
