"""Names of species: pronounceable invented words, and the nouns of each kind."""

import random

ONSETS = tuple("b br d dr f g gl h j k kr l m n p pl qu r s t v z".split())
VOWELS = ("a", "e", "i", "o", "u")
MIDDLES = ("l", "lm", "r", "rn", "n", "nd", "v", "st", "sk", "m", "b", "t")
ENDINGS = ("a", "o", "is", "un", "el", "ar", "et", "ix", "os", "ane", "ith", "ur")

NOUNS: dict[str, tuple[str, ...]] = {
    "bird": ("finch", "warbler", "wren"),
    "car": ("coupe", "roadster", "sedan"),
    "flower": ("lily", "daisy", "aster"),
    "fish": ("tetra", "guppy", "cod"),
    "mushroom": ("bolete", "morel", "toadstool"),
    "balloon": ("balloon", "aerostat", "floater"),
}
KIND_OF_NOUN = {noun: kind for kind, nouns in NOUNS.items() for noun in (*nouns, kind)}


def _invent_word(rng: random.Random) -> str:
    """Return one invented word of two or three syllables, starting with a consonant."""
    middles = [rng.choice(VOWELS) + rng.choice(MIDDLES) for _ in range(rng.choice((1, 2)))]
    return rng.choice(ONSETS) + "".join(middles) + rng.choice(ENDINGS)


def invent_name(rng: random.Random, kind: str) -> str:
    """Return a two-word name whose second word reveals `kind`."""
    return f"{_invent_word(rng)} {rng.choice(NOUNS[kind])}"
