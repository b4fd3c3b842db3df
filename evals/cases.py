"""Test cases in the miniature world: prompts with the species that their image must show.

Tier "hard" has prompts for libraries of look-alikes, of which `pleinair.evals.papers.cases` has one kind: a
rare or a novel species, twice, thrice, small or big, or in a relation to a known one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL.Image import Image

from pleinair.tools.pocket.catalogue.language.prompts import Mention, Request, write_prompt
from pleinair.tools.pocket.catalogue.language.reading import read
from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.catalogue.scenes import Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import BY_NAME, SPECIES
from pleinair.tools.types import BadInput

Tier = Literal["rare", "known", "two", "three", "novel", "hard"]
TIERS: tuple[Tier, ...] = ("rare", "known", "two", "three")  # of the pocket benchmark
SUBJECTS = {"two": 2, "three": 3}


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

    Each prompt states a place, some a light or a weather, and those of several species a relation. In tiers
    "two" and "three" all are rare in the first case, one fewer in the next, and so on down to one. Not
    covered: colours, kinds without a species, free language; whether count, size and relation are right.

    Raises:
        BadInput: `prompts` is no positive multiple of the number of tiers.
    """
    if prompts < 1 or prompts % len(tiers):
        raise BadInput(f"prompts = {prompts}: use a positive multiple of {len(tiers)}, the number of tiers.")
    return [make_case(tier, number, seed) for tier in tiers for number in range(prompts // len(tiers))]


def make_case(tier: Tier, number: int, seed: int) -> Case:
    """Write case `number` of a tier; it depends on the three arguments alone."""
    rng = random.Random(f"{seed}/{tier}/{number}")
    species = tuple(_choose_species(rng, tier, number))
    scene = draw_scene(rng, [BY_NAME[name] for name in species])
    mentions = tuple(map(Mention, species))
    if tier == "hard" and len(species) == 1:
        count, size = rng.choice(((2, ""), (3, ""), (1, "small"), (1, "big")))
        mentions = (Mention(species[0], count, size),)
    request = Request(mentions, scene.relations, scene.background, scene.light, scene.weather)
    return Case(f"{tier}-{number}", tier, write_prompt(rng, request), species, rng.randrange(2**32))


def _choose_species(rng: random.Random, tier: Tier, number: int) -> list[str]:
    """Choose the species of a case, each at most once, in random order."""
    if tier == "hard":
        unknown = rng.choice(species_of(("rare", "novel")[number % 2]))
        other = [rng.choice(species_of("known"))] if number // 2 % 2 else []
        return rng.sample([unknown, *other], 1 + len(other))
    if tier not in SUBJECTS:
        return [rng.choice(species_of(tier))]
    known = number % SUBJECTS[tier]
    chosen = rng.sample(species_of("rare"), SUBJECTS[tier] - known) + rng.sample(species_of("known"), known)
    return rng.sample(chosen, len(chosen))


def render_case(case: Case) -> Image:
    """Return the image that the world's own renderer draws of a case, always the same one."""
    request = read(case.prompt).request
    scene = place_scene(
        random.Random(case.seed),
        [Subject(BY_NAME[mention.name], mention.count, mention.size) for mention in request.mentions],
        request.relations,
        background=request.background,
        light=request.light or "day",
        weather=request.weather or "clear",
    )
    return render(scene)


def cluster(case: Case) -> str:
    """Return the species that groups a case for intervals: the first that is not known, else the first.

    Cases about one species share its look and its references, so they are not independent.
    """
    known = species_of("known")
    return next((name for name in case.species if name not in known), case.species[0])


def species_of(tier: str) -> list[str]:
    """Return the names of the species in one of the world's tiers."""
    return [species.name for species in SPECIES if species.tier == tier]
