"""Species and held-out random streams of the first world."""

import random

from pleinair.tools.pocket.invented.world import (
    KINDS,
    PATTERNS,
    SPECIES,
    Species,
    colour_pairs,
    invent_name,
)

FIRST_WORDS = frozenset(species.name.split()[0] for species in SPECIES)
LOOKS = frozenset((species.kind, species.body, species.accent) for species in SPECIES)


def species_named(name: str) -> Species:
    """Return the species of a name."""
    return next(species for species in SPECIES if species.name == name)


def held_out_rng(index: int) -> random.Random:
    """Return a random stream that no training of the first world's models used."""
    return random.Random(2**31 + index)


def random_species(rng: random.Random) -> Species:
    """Invent a species that shares neither first word nor (kind, body, accent) with any of `SPECIES`."""
    kind = rng.choice(KINDS)
    name = invent_name(rng, kind)
    while name.split()[0] in FIRST_WORDS:
        name = invent_name(rng, kind)
    free = [pair for pair in colour_pairs() if (kind, *pair) not in LOOKS]
    body, accent = rng.choice(free)
    return Species(name, kind, "novel", body, accent, rng.choice(PATTERNS))
