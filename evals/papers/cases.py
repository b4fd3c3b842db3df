"""Write the libraries that the papers' claims are tested on, and know what is in every picture.

"even" has each known and rare species in turn, as the shipped library. "generic" is mostly other things: a
rare species is every five-hundredth picture, so that a small pool has few of them. "hard" is mostly
look-alikes of rare and novel species, some of them under their names. "domain" has rare species alone. All
have the shipped library's near-duplicates and its wrong, empty and nameless captions. A smaller library is
the beginning of a larger one of its kind and seed.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

from pleinair.evals.cases import Case, Tier, make_case, names
from pleinair.tools.pocket.library import (
    AUTHOR,
    EMPTY_CAPTION,
    LICENSE,
    NAMED_CAPTION,
    NEAR_DUPLICATE,
    SOURCE,
    TWO_SUBJECTS,
    WRONG_CAPTION,
)
from pleinair.tools.pocket.names import invent_name
from pleinair.tools.pocket.prompts import RELATIONS, caption
from pleinair.tools.pocket.world import (
    SPECIES,
    Scene,
    Species,
    colour_pairs,
    fingerprint,
    random_scene,
    random_species,
    render,
)
from pleinair.tools.retrieval.library import Library
from pleinair.tools.types import BadInput

Kind = Literal["even", "generic", "hard", "domain"]
Shot = tuple[Scene, str]  # with its caption

IN_LIBRARY = tuple(one for one in SPECIES if one.tier != "novel")
RARE = tuple(one for one in SPECIES if one.tier == "rare")
KNOWN = tuple(one for one in SPECIES if one.tier == "known")
SOUGHT = tuple(one for one in SPECIES if one.tier != "known")  # in a hard library
RARE_SHARE = len(RARE) / 500  # of a generic library
LOOK_ALIKES, TRUE_ONES, OTHERS = 0.6, 0.15, 0.25  # of a hard library
MISNAMED = 0.15  # of the look-alikes are captioned as what they look like


@dataclass(frozen=True, slots=True)
class Stock:
    """Hold a library and the species in each of its pictures."""

    library: Library
    truth: dict[str, tuple[str, ...]]

    def shows(self, id: str, name: str) -> bool:
        """Tell whether a picture shows a species."""
        return name in self.truth[id]

    def has(self, name: str) -> bool:
        """Tell whether any picture shows a species."""
        return any(name in found for found in self.truth.values())


def open_stock(folder: Path, kind: Kind, size: int, seed: int) -> Stock:
    """Open a library below `folder`; it is written at its first use."""
    place = folder / f"{kind}-{size}-{seed}-{fingerprint()}"
    if not (place / "truth.json").exists():
        shutil.rmtree(place, ignore_errors=True)
        _write_stock(place, shots(kind, random.Random(f"{kind}-{seed}")), size)
    truth = json.loads((place / "truth.json").read_text("utf-8"))
    return Stock(Library.open(place / "pictures"), {id: tuple(found) for id, found in truth.items()})


def _write_stock(place: Path, found: Iterator[Shot], size: int) -> None:
    """Write the first `size` pictures with their metadata, and last of all what is in them."""
    pictures, lines, truth = place / "pictures", [], {}
    pictures.mkdir(parents=True)
    for number, (scene, text) in enumerate(islice(found, size)):
        name = f"{number:05d}.png"
        render(scene).save(pictures / name)
        truth[name] = [one.species.name for one in scene.subjects]
        facts = {"license": LICENSE, "source": f"{SOURCE}/{place.name}/{name}", "author": AUTHOR}
        lines.append(json.dumps({"file_name": name, "text": text, **facts}) + "\n")
    (pictures / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    (place / "truth.json").write_text(json.dumps(truth), encoding="utf-8")


def shots(kind: Kind, rng: random.Random) -> Iterator[Shot]:
    """Yield scenes with captions without end; now and then the last one again, moved by a hair."""
    for first, passed_for in _firsts(kind, rng):
        pair = rng.random() < TWO_SUBJECTS
        shown = [first, rng.choice(KNOWN)] if pair else [first]
        scene = random_scene(rng, shown, relation=rng.choice(RELATIONS) if pair else None)
        yield scene, _worded(rng, scene, passed_for)
        if rng.random() < NEAR_DUPLICATE:
            again = replace(scene, subjects=tuple(replace(one, x=one.x + 0.01) for one in scene.subjects))
            yield again, _worded(rng, again, passed_for)


def _worded(rng: random.Random, scene: Scene, passed_for: Species | None) -> str:
    """Write a caption: mostly with names, else of what is seen; a few are empty, a few name others."""
    draw = rng.random()
    if draw < EMPTY_CAPTION:
        return ""
    wrong = rng.choice(IN_LIBRARY) if draw < EMPTY_CAPTION + WRONG_CAPTION else passed_for
    if wrong:
        first, *rest = scene.subjects
        told = replace(scene, subjects=(replace(first, species=wrong), *rest))
        return caption(rng, told, named=True)
    return caption(rng, scene, named=rng.random() < NAMED_CAPTION)


def _firsts(kind: Kind, rng: random.Random) -> Iterator[tuple[Species, Species | None]]:
    """Yield each picture's first species, and the species that its caption takes it for, if another."""
    return {"even": _even, "generic": _generic, "hard": _hard, "domain": _domain}[kind](rng)


def _even(rng: random.Random) -> Iterator[tuple[Species, None]]:
    """Yield the known and the rare species in turn."""
    return ((one, None) for one in cycle(IN_LIBRARY))


def _domain(rng: random.Random) -> Iterator[tuple[Species, None]]:
    """Yield the rare species in turn."""
    return ((one, None) for one in cycle(RARE))


def _generic(rng: random.Random) -> Iterator[tuple[Species, None]]:
    """Yield mostly known species and strangers."""
    while True:
        if rng.random() < RARE_SHARE:
            yield rng.choice(RARE), None
        else:
            yield (rng.choice(KNOWN) if rng.random() < 0.5 else random_species(rng)), None


def _hard(rng: random.Random) -> Iterator[tuple[Species, Species | None]]:
    """Yield look-alikes of rare and novel species, those themselves, and known ones."""
    sorts = (look_alike, lambda rng: (rng.choice(SOUGHT), None), lambda rng: (rng.choice(KNOWN), None))
    while True:
        (make,) = rng.choices(sorts, (LOOK_ALIKES, TRUE_ONES, OTHERS))
        yield make(rng)


def look_alike(rng: random.Random) -> tuple[Species, Species | None]:
    """Invent a species with the kind, the pattern and one of the two colours of one that is sought."""
    real = rng.choice(SOUGHT)
    body, accent = rng.choice(near_pairs(real))
    name = invent_name(rng, real.kind)
    twin = Species(name, real.kind, "novel", body, accent, real.pattern)
    return twin, real if rng.random() < MISNAMED else None


@cache
def near_pairs(real: Species) -> tuple[tuple[str, str], ...]:
    """List the colours that share one with a species' own and are no other species' of its kind."""
    taken = {(one.body, one.accent) for one in SPECIES if one.kind == real.kind}
    near = [(body, accent) for body, accent in colour_pairs() if body == real.body or accent == real.accent]
    return tuple(pair for pair in near if pair not in taken)


def in_turn(tiers: Sequence[Tier], prompts: int, seed: int) -> list[Case]:
    """Write `prompts` cases, as many in each tier.

    Raises:
        BadInput: `prompts` is no positive multiple of the tiers.
    """
    if prompts < 1 or prompts % len(tiers):
        raise BadInput(f"prompts = {prompts}: wanted a positive multiple of {len(tiers)}.")
    return [make_case(tier, number, seed) for tier in tiers for number in range(prompts // len(tiers))]


def bunches(count: int, most: int, seed: int) -> list[tuple[str, ...]]:
    """Draw `count` groups of each size from 2 to `most` of the species that libraries have."""
    rng, pool = random.Random(f"bunches-{seed}"), [*names("rare"), *names("known")]
    return [tuple(rng.sample(pool, size)) for size in range(2, most + 1) for _ in range(count)]
