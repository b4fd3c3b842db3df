"""Measure how often the pocket encoder finds the picture of a name first."""

from pathlib import Path
from typing import Any

import torch

from pleinair.tools.pocket.detector import encode_images, load_encoder
from pleinair.tools.pocket.prompts import describe
from pleinair.tools.pocket.training.card import Figures, figures_section
from pleinair.tools.pocket.training.embed import encode_short, normalise, pixels
from pleinair.tools.pocket.training.pictures import draw
from pleinair.tools.pocket.world import SPECIES, held_out_rng

EACH, CROWD = 4, 200  # held-out pictures of every species, and of two
BARS = {"known": ">= .95", "rare": ">= .95", "novel": "-"}


def measure(folder: Path) -> Figures:
    """Measure a folder's encoder in the present world."""
    model, _, tokenize = load_encoder(folder)
    return {
        f"R@1, {tier}, {'description' if tier == 'novel' else 'name'} → picture": (f"{share:.3f}", BARS[tier])
        for tier, share in _recall(model, tokenize).items()
    }


def section(figures: Figures) -> str:
    """Write the card's section of figures."""
    count = f"One query a species, among {EACH} pictures of each and {CROWD} of two"
    return figures_section(figures, count, "python -m pleinair.evals.pocket.models")


def _recall(model: Any, tokenize: Any, each: int = EACH, crowd: int = CROWD) -> dict[str, float]:
    """Return the share of species whose name finds a picture of it alone first, by tier.

    The pictures are held-out scenes: `each` of every species and `crowd` scenes of two. Novel species are
    asked for by description.
    """
    chosen = [[s] for s in SPECIES for _ in range(each)]
    chosen += [held_out_rng(index).sample(SPECIES, 2) for index in range(crowd)]
    samples = [draw(held_out_rng(10_000 + index), species) for index, species in enumerate(chosen)]
    queries = [f"a photo of a {describe(s) if s.tier == 'novel' else s.name}" for s in SPECIES]
    with torch.inference_mode():
        whole, _ = encode_images(model, normalise(pixels(samples)))
        best = (encode_short(model, tokenize(queries)) @ whole.T).argmax(-1).tolist()
    right = {s.name: chosen[index] == [s] for s, index in zip(SPECIES, best, strict=True)}
    tiers = {tier: [right[s.name] for s in SPECIES if s.tier == tier] for tier in ("known", "rare", "novel")}
    return {tier: sum(rights) / len(rights) for tier, rights in tiers.items()}
