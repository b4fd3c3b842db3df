"""Test cases in the miniature world: prompts with the species that their image must show."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pleinair.tools.pocket.invented.backgrounds import BACKGROUNDS
from pleinair.tools.pocket.invented.prompts import RELATIONS, Request, write_prompt
from pleinair.tools.pocket.invented.world import SPECIES
from pleinair.tools.types import BadInput

Tier = Literal["rare", "known", "two", "novel"]
TIERS: tuple[Tier, ...] = ("rare", "known", "two")  # of the pocket benchmark


@dataclass(frozen=True, slots=True)
class Case:
    """Prompt with the species that its image must show; `seed` is that of the draft's noise."""

    id: str
    tier: Tier
    prompt: str
    species: tuple[str, ...]
    seed: int


def make_cases(prompts: int, seed: int, tiers: Sequence[Tier] = TIERS) -> list[Case]:
    """Write `prompts` cases, equally many in each tier; more prompts only add cases to those of fewer.

    Tier "two" alternates between two rare species and a rare with a known one. Not covered: more than two
    subjects, prompts outside the grammar.

    Raises:
        BadInput: `prompts` is no positive multiple of the number of tiers.
    """
    if prompts < 1 or prompts % len(tiers):
        raise BadInput(f"prompts = {prompts}: use a positive multiple of {len(tiers)}, the number of tiers.")
    return [make_case(tier, number, seed) for tier in tiers for number in range(prompts // len(tiers))]


def make_case(tier: Tier, number: int, seed: int) -> Case:
    """Write case `number` of a tier; it depends on the three arguments alone."""
    rng = random.Random(f"{seed}/{tier}/{number}")
    species = _choose_species(rng, tier, number)
    relation = rng.choice(RELATIONS) if len(species) > 1 else None
    prompt = write_prompt(rng, Request(species, relation, rng.choice(BACKGROUNDS)))
    return Case(f"{tier}-{number}", tier, prompt, species, rng.randrange(2**32))


def _choose_species(rng: random.Random, tier: Tier, number: int) -> tuple[str, ...]:
    """Choose the species of a case, each at most once, in random order."""
    if tier != "two":
        return (rng.choice(species_of(tier)),)
    if number % 2 == 0:
        return tuple(rng.sample(species_of("rare"), 2))
    pair = [rng.choice(species_of("rare")), rng.choice(species_of("known"))]
    return tuple(rng.sample(pair, 2))


def cluster(case: Case) -> str:
    """Return the species that groups a case for intervals: the first rare one of its prompt, else the first.

    Cases about one species share its look and its references, so they are not independent.
    """
    rare = species_of("rare")
    return next((name for name in case.species if name in rare), case.species[0])


def species_of(tier: str) -> list[str]:
    """Return the names of the species in one of the world's tiers."""
    return [species.name for species in SPECIES if species.tier == tier]
