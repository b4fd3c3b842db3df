"""Word what stands in a scene: names, descriptions and parts of them, with what each text says."""

import random
from dataclasses import dataclass

from pleinair.tools.pocket.prompts import caption, describe, with_article
from pleinair.tools.pocket.world import SPECIES, Scene, Species

TAUGHT = tuple(species for species in SPECIES if species.tier != "novel")


@dataclass(frozen=True, slots=True)
class Wish:
    """Hold what a phrase says of a look; None stands for what it leaves open."""

    kind: str
    body: str | None = None
    accent: str | None = None
    pattern: str | None = None

    def fits(self, species: Species) -> bool:
        """Say whether a subject of this look fulfils the wish."""
        pairs = (
            (self.kind, species.kind),
            (self.body, species.body),
            (self.accent, species.accent),
            (self.pattern, species.pattern),
        )
        return all(wanted in (None, given) for wanted, given in pairs)


@dataclass(frozen=True, slots=True)
class Text:
    """Hold one text with what it says: a wish a subject, and the background if it names one."""

    words: str
    wishes: tuple[Wish, ...]
    background: str | None = None

    def fits(self, scene: Scene) -> bool:
        """Say whether the text describes the scene, whatever else it leaves open."""
        return (
            self.background in (None, scene.background)
            and len(self.wishes) == len(scene.subjects)
            and all(any(wish.fits(s.species) for s in scene.subjects) for wish in self.wishes)
        )


def _full_wish(species: Species) -> Wish:
    """Return the wish that a name or a full description expresses."""
    return Wish(species.kind, species.body, species.accent, species.pattern)


def phrase(rng: random.Random, species: Species) -> Text:
    """Word one subject alone: by name, by full description, or by a part of it ('teal bird')."""
    chance = rng.random()
    words, wish = describe(species), _full_wish(species)
    if species.name and chance < 0.55:
        words = species.name
    elif chance > 0.85:
        words, wish = _partly(rng, species)
    wording = rng.choice((words, with_article(words), f"a photo of {with_article(words)}"))
    return Text(wording, (wish,))


def _partly(rng: random.Random, species: Species) -> tuple[str, Wish]:
    kind, body, pattern = species.kind, species.body, species.pattern
    if rng.random() < 0.4:
        return kind, Wish(kind)
    if pattern == "plain" or rng.random() < 0.6:
        return f"{body} {kind}", Wish(kind, body)
    return f"{pattern} {body} {kind}", Wish(kind, body, pattern=pattern)


def scene_text(rng: random.Random, scene: Scene) -> Text:
    """Write a caption of the whole scene, or a phrase where there is but one subject."""
    if len(scene.subjects) == 1 and rng.random() < 0.5:
        return phrase(rng, scene.subjects[0].species)
    named = all(s.species.name for s in scene.subjects) and rng.random() < 0.6
    wishes = tuple(_full_wish(s.species) for s in scene.subjects)
    return Text(caption(rng, scene, named=named), wishes, scene.background)
