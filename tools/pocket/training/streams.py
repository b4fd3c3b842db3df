"""Random streams of training and held-out items, and species invented for them."""

import random

from pleinair.tools.pocket.invented.world import KINDS, PATTERNS, SPECIES, Species, colour_pairs, invent_name

TRAIN_SEED = 0
HELD_OUT_SEED = 2**31
SEEDS_EACH = 2**31
FIRST_WORDS = frozenset(species.name.split()[0] for species in SPECIES)
LOOKS = frozenset((species.kind, species.body, species.accent) for species in SPECIES)


def training_rng(index: int) -> random.Random:
    """Return the random stream of training item `index`, 0..2**31-1."""
    return random.Random(TRAIN_SEED + _check_index(index))


def held_out_rng(index: int) -> random.Random:
    """Return the random stream of held-out item `index`; its seed is never one of `training_rng`."""
    return random.Random(HELD_OUT_SEED + _check_index(index))


def _check_index(index: int) -> int:
    if not 0 <= index < SEEDS_EACH:
        raise ValueError(f"index must be in 0..{SEEDS_EACH - 1}, got {index}")
    return index


def random_species(rng: random.Random) -> Species:
    """Invent a species that shares neither first word nor (kind, body, accent) with any of `SPECIES`."""
    kind = rng.choice(KINDS)
    name = invent_name(rng, kind)
    while name.split()[0] in FIRST_WORDS:
        name = invent_name(rng, kind)
    free = [pair for pair in colour_pairs() if (kind, *pair) not in LOOKS]
    body, accent = rng.choice(free)
    return Species(name, kind, "novel", body, accent, rng.choice(PATTERNS))
