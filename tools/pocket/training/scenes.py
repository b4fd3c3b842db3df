"""Labelled images and texts of the world, for the models that look at images: samples and phrases."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pleinair.tools.pocket.invented.prompts import RELATIONS, caption, describe, with_article
from pleinair.tools.pocket.invented.world import (
    SPECIES,
    Scene,
    Species,
    Subject,
    colour_pairs,
    random_scene,
    render,
)
from pleinair.tools.pocket.training.images import Rng, Sample
from pleinair.tools.pocket.training.streams import LOOKS, random_species

GRID = 16  # cells a side of the owner map, 4 pixels each
TAUGHT = tuple(species for species in SPECIES if species.tier != "novel")


def impostor(rng: Rng, species: Species) -> Species:
    """Return the species with one of its two colours exchanged, so that it is none of `SPECIES`."""
    looks = [
        (body, accent)
        for body, accent in colour_pairs()
        if (body == species.body) != (accent == species.accent) and (species.kind, body, accent) not in LOOKS
    ]
    body, accent = rng.choice(looks)
    return replace(species, name="", tier="novel", body=body, accent=accent)


def _coverage(subject: Subject) -> NDArray[np.float32]:
    """Return the share of each cell that the subject covers, [16, 16] in 0..1; windows count as holes.

    The subject is drawn in black on the meadow, whose red channel is nowhere under 160.
    """
    black = replace(subject, species=replace(subject.species, body="black", accent="black"))
    red = np.asarray(render(Scene((black,), "meadow", 0), GRID), dtype=np.float32)[..., 0]
    return ((160 - red) / 130).clip(0, 1)


def owner_map(scene: Scene) -> NDArray[np.int8]:
    """Return the owner of each cell of a scene, int8 [16, 16]."""
    owner = np.zeros((GRID, GRID), dtype=np.int8)
    for number, subject in enumerate(scene.subjects, start=1):
        share = _coverage(subject)
        owner[(share > 0.15) & (share < 0.55)] = -1
        owner[share >= 0.55] = number
    return owner


def render_sample(rng: Rng, species: Sequence[Species]) -> Sample:
    """Render one scene of one or two species in a random relation."""
    scene = random_scene(rng, species, relation=rng.choice(RELATIONS))
    return Sample(np.asarray(render(scene)).copy(), owner_map(scene), scene)


def choose_species(
    rng: Rng, pool: Sequence[Species], *, pairs: float = 0.5, strangers: float = 0.25
) -> list[Species]:
    """Choose one species of the pool or, with probability `pairs`, two different ones.

    Each is replaced, with probability `strangers`, by an impostor or by a freshly invented look.
    """
    species = rng.sample(list(pool), 2 if rng.random() < pairs else 1)
    return [_stranger(rng, s) if rng.random() < strangers else s for s in species]


def _stranger(rng: Rng, species: Species) -> Species:
    if rng.random() < 0.7:
        return impostor(rng, species)
    return replace(random_species(rng), name="")


@dataclass(frozen=True, slots=True)
class Look:
    """Attributes of a species that a phrase states; None stands for one that it leaves open."""

    kind: str
    body: str | None = None
    accent: str | None = None
    pattern: str | None = None

    def fits(self, species: Species) -> bool:
        """Return whether a species has all stated attributes."""
        pairs = (
            (self.kind, species.kind),
            (self.body, species.body),
            (self.accent, species.accent),
            (self.pattern, species.pattern),
        )
        return all(stated in (None, actual) for stated, actual in pairs)


@dataclass(frozen=True, slots=True)
class Text:
    """Text with its meaning: a look for each subject, and the background if it names one."""

    words: str
    looks: tuple[Look, ...]
    background: str | None = None

    def fits(self, scene: Scene) -> bool:
        """Return whether the text describes the scene, whatever else it leaves open."""
        return (
            self.background in (None, scene.background)
            and len(self.looks) == len(scene.subjects)
            and all(any(look.fits(s.species) for s in scene.subjects) for look in self.looks)
        )


def _full_look(species: Species) -> Look:
    """Return the look that a name or a full description states."""
    return Look(species.kind, species.body, species.accent, species.pattern)


def phrase(rng: Rng, species: Species) -> Text:
    """Write a phrase for one subject: its name, its full description, or a part of that ('teal bird')."""
    chance = rng.random()
    words, look = describe(species), _full_look(species)
    if species.name and chance < 0.55:
        words = species.name
    elif chance > 0.85:
        words, look = _partial_description(rng, species)
    wording = rng.choice((words, with_article(words), f"a photo of {with_article(words)}"))
    return Text(wording, (look,))


def _partial_description(rng: Rng, species: Species) -> tuple[str, Look]:
    kind, body, pattern = species.kind, species.body, species.pattern
    if rng.random() < 0.4:
        return kind, Look(kind)
    if pattern == "plain" or rng.random() < 0.6:
        return f"{body} {kind}", Look(kind, body)
    return f"{pattern} {body} {kind}", Look(kind, body, pattern=pattern)


def scene_text(rng: Rng, scene: Scene) -> Text:
    """Write a caption of the scene, or a phrase if there is one subject."""
    if len(scene.subjects) == 1 and rng.random() < 0.5:
        return phrase(rng, scene.subjects[0].species)
    by_name = all(s.species.name for s in scene.subjects) and rng.random() < 0.6
    looks = tuple(_full_look(s.species) for s in scene.subjects)
    return Text(caption(rng, scene, by_name=by_name), looks, scene.background)
