"""Random training items of the pocket generator: a scene, how the prompt names it, and what is referenced.

A *known* species is drawn under its name. Of a *rare* name only the kind is taught: without a reference it is
drawn as the kind's plain look, with one it has the reference's look, which is random, so that copying
generalises. Novel names appear nowhere; invented ones stand for them, of which some have words of known names
("zorgle seahorse"), since the reference counts, not the word.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pleinair.tools.pocket.catalogue.backgrounds import BACKGROUNDS, LIGHTS, WEATHERS
from pleinair.tools.pocket.catalogue.drawings.palette import NAMED
from pleinair.tools.pocket.catalogue.language.prompts import Request, request_of, write_prompt
from pleinair.tools.pocket.catalogue.scenes import RELATIONS, Scene, Subject, place_scene
from pleinair.tools.pocket.catalogue.species import BY_NAME, KINDS, SPECIES, Species, invent, plain
from pleinair.tools.pocket.invented.world import invent_name

TRAIN_SEED, HELD_OUT_SEED, SEEDS_EACH = 2**32, 2**33, 2**32
KNOWN = tuple(species for species in SPECIES if species.tier == "known")
RARE = tuple(species for species in SPECIES if species.tier == "rare")
_WORDS = {
    kind: tuple({word: None for s in KNOWN if s.kind == kind for word in s.name.split() if word not in KINDS})
    for kind in KINDS
}
_LOOKS = frozenset((species.kind, tuple(sorted(species.looks.items()))) for species in SPECIES)


@dataclass(frozen=True, slots=True)
class Item:
    """Scene, the request that its prompts state, and the species of its references in their order."""

    scene: Scene
    request: Request
    referenced: tuple[Species, ...]

    def prompt(self, rng: random.Random) -> str:
        """Write one of the item's prompts."""
        return write_prompt(rng, self.request)


def training_rng(index: int) -> random.Random:
    """Return the random stream of training item `index`, 0..2**32-1."""
    return random.Random(TRAIN_SEED + index % SEEDS_EACH)


def held_out_rng(index: int) -> random.Random:
    """Return the random stream of held-out item `index`; it is none of `training_rng`."""
    return random.Random(HELD_OUT_SEED + index % SEEDS_EACH)


def draw_item(rng: random.Random, references: int) -> Item:
    """Draw an item with so many references, 0 to 3."""
    count = max(references, rng.choices((1, 2, 3), (5, 4, 2))[0])
    named = [_referenced(rng) for _ in range(references)]
    named += [_unreferenced(rng) for _ in range(count - references)]
    places = sorted(rng.sample(range(count), references))
    others = iter(named[references:])
    with_reference = iter(named[:references])
    chosen = [next(with_reference) if place in places else next(others) for place in range(count)]
    subjects = [Subject(species, _count(rng, count), _size(rng, count)) for species, _, _ in chosen]
    relations = [rng.choice(RELATIONS) if rng.random() < 0.6 else "beside"] if count > 1 else []
    scene = place_scene(rng, subjects, relations, **_circumstances(rng))
    request = request_of(scene, [name for _, name, _ in chosen], [colour for _, _, colour in chosen])
    return Item(scene, _leave_open(rng, request), tuple(species for species, _, _ in named[:references]))


def _referenced(rng: random.Random) -> tuple[Species, str, str]:
    """Return a species, its name in the prompt and its colour word there."""
    chance = rng.random()
    if chance < 0.15:
        species = rng.choice(KNOWN)
        return species, species.name, ""
    species = _new_look(rng)
    if chance < 0.55:
        return species, rng.choice([rare.name for rare in RARE if rare.kind == species.kind]), ""
    if chance < 0.65:
        return species, species.kind, ""
    return species, _invent_words(rng, species.kind), ""


def _new_look(rng: random.Random) -> Species:
    """Return a look that is no species': random, or a known one with some parts changed."""
    while True:
        species = invent(rng)
        if rng.random() < 0.5:
            base = rng.choice(SPECIES)
            changed = {key: invent(rng, base.kind).looks[key] for key in rng.sample(sorted(base.looks), 2)}
            species = replace(species, kind=base.kind, looks={**base.looks, **changed})
        if (species.kind, tuple(sorted(species.looks.items()))) not in _LOOKS:
            return species


def _invent_words(rng: random.Random, kind: str) -> str:
    """Return an invented name of one or two words, the kind or words of known names sometimes among them."""
    words = [invent_name(rng, "bird").split()[0] for _ in range(rng.choice((1, 1, 2)))]
    name = " ".join(words[:1] + [kind]) if rng.random() < 0.3 else " ".join(words)
    return _with_known_words(name, kind)


def _with_known_words(name: str, kind: str) -> str:
    """Return an invented name, or one with words of known names and colours that is no species'."""
    rng, word = random.Random(name), name.split()[0]
    colour, own = rng.choice(tuple(NAMED)), rng.choice(_WORDS[kind])
    other = rng.choice(_WORDS[rng.choice(tuple(KINDS))])
    pairs = ((word, own), (other, own), (colour, own), (colour, word), (other, word))
    chosen = rng.choice([name, name, *map(" ".join, pairs)])
    return name if chosen in BY_NAME else chosen


def _unreferenced(rng: random.Random) -> tuple[Species, str, str]:
    chance = rng.random()
    if chance < 0.78:
        species = rng.choice(KNOWN)
        return species, species.name, ""
    kind = rng.choice(tuple(KINDS))
    if chance < 0.9:
        colour = rng.choice(tuple(NAMED)) if rng.random() < 0.75 else ""
        return plain(kind, colour), kind, colour
    rare = rng.choice(RARE)
    return plain(rare.kind), rare.name, ""


def _count(rng: random.Random, subjects: int) -> int:
    return rng.choices((1, 2, 3), (8, 1, 1) if subjects == 1 else (12, 1, 0))[0] if subjects < 3 else 1


def _size(rng: random.Random, subjects: int) -> str:
    return rng.choices(("", "small", "big"), (8, 1, 1))[0] if subjects < 3 else ""


def _circumstances(rng: random.Random) -> dict[str, str]:
    background = rng.choice(tuple(BACKGROUNDS))
    if background in ("table", "underwater"):
        return {"background": background}
    light = rng.choices(LIGHTS, (8, 1, 1))[0]
    weather = rng.choices(WEATHERS, (10, 1, 1, 1))[0]
    return {"background": background, "light": light, "weather": weather}


def _leave_open(rng: random.Random, request: Request) -> Request:
    """Leave the place open in a fifth of the prompts; light and weather are always stated."""
    return replace(request, background="") if rng.random() < 0.2 else request


def prompts(count: int, first: int = 0) -> Sequence[str]:
    """Return prompts of items with and without references, for the tokenizer."""
    drawn = []
    for index in range(first, first + count):
        rng = training_rng(SEEDS_EACH // 2 + index)
        drawn.append(draw_item(rng, rng.choices((0, 1, 2), (8, 1, 1))[0]).prompt(rng))
    return drawn
