"""Write fresh cases in the miniature world: prompts whose right answer is known."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from pleinair.tools.pocket.backgrounds import BACKGROUNDS
from pleinair.tools.pocket.prompts import RELATIONS, Request, write_prompt
from pleinair.tools.pocket.world import SPECIES
from pleinair.tools.types import BadInput

Tier = Literal["rare", "known", "two", "novel"]
TIERS: tuple[Tier, ...] = ("rare", "known", "two")  # of the pocket benchmark


@dataclass(frozen=True, slots=True)
class Case:
    """Pair a prompt with the species that its picture must show; `seed` is the draft's noise."""

    id: str
    tier: Tier
    prompt: str
    species: tuple[str, ...]
    seed: int


def make_cases(prompts: int, seed: int) -> list[Case]:
    """Write `prompts` cases, a third in each tier; more prompts only add cases to those of fewer.

    Tier "two" alternates between two rare species and a rare with a known one. Not covered: novel species,
    more than two subjects, prompts outside the grammar.

    Raises:
        BadInput: `prompts` is no positive multiple of 3.
    """
    if prompts < 1 or prompts % len(TIERS):
        raise BadInput(f"prompts = {prompts}: wanted a positive multiple of {len(TIERS)}, the tiers.")
    each = prompts // len(TIERS)
    return [make_case(tier, number, seed) for tier in TIERS for number in range(each)]


def make_case(tier: Tier, number: int, seed: int) -> Case:
    """Write case `number` of a tier; it follows from the three arguments alone."""
    rng = random.Random(f"{seed}/{tier}/{number}")
    species = _choose_species(rng, tier, number)
    relation = rng.choice(RELATIONS) if len(species) > 1 else None
    prompt = write_prompt(rng, Request(species, relation, rng.choice(BACKGROUNDS)))
    return Case(f"{tier}-{number}", tier, prompt, species, rng.randrange(2**32))


def _choose_species(rng: random.Random, tier: Tier, number: int) -> tuple[str, ...]:
    """Choose the species of a case, each at most once, in random order."""
    if tier != "two":
        return (rng.choice(names(tier)),)
    if number % 2 == 0:
        return tuple(rng.sample(names("rare"), 2))
    pair = [rng.choice(names("rare")), rng.choice(names("known"))]
    return tuple(rng.sample(pair, 2))


def names(tier: str) -> list[str]:
    """List the species of one of the world's tiers."""
    return [species.name for species in SPECIES if species.tier == tier]
