"""Prompts and captions of the catalogue world, written at random from what a scene shows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pleinair.tools.pocket.catalogue.scenes import Scene
from pleinair.tools.pocket.catalogue.species import KINDS

COUNTS = {1: ("a", "one"), 2: ("two",), 3: ("three",)}
SIZE_WORDS = {"": ("",), "small": ("small", "tiny", "little"), "big": ("big", "large", "huge")}
RELATION_WORDS: dict[str, tuple[str, ...]] = {
    "beside": ("and", "beside", "next to", "with", "near"),
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "under": ("under", "below"),
    "on": ("on", "on top of", "sitting on", "riding"),
    "in front of": ("in front of",),
    "behind": ("behind",),
}
PLACE_WORDS: dict[str, tuple[str, ...]] = {
    "meadow": ("in a meadow", "in the grass", "in a field"),
    "forest": ("in a forest", "in the woods", "among trees"),
    "jungle": ("in the jungle", "in a rainforest"),
    "beach": ("on a beach", "at the beach", "by the shore"),
    "sea": ("at sea", "on the sea", "on the ocean"),
    "lake": ("by a lake", "at a pond", "on a lake"),
    "underwater": ("under water", "underwater", "in an aquarium"),
    "desert": ("in a desert", "in the desert", "in the sand"),
    "mountains": ("in the mountains", "before mountains"),
    "city": ("in a city", "in town", "downtown"),
    "road": ("on a road", "on the street"),
    "sky": ("in the sky", "among clouds"),
    "snow": ("in the snow", "in winter"),
    "garden": ("in a garden", "in the yard"),
    "table": ("on a table", "in a kitchen", "indoors"),
}
LIGHT_WORDS = {"day": ("",), "sunset": ("at sunset", "in the evening"), "night": ("at night", "by moonlight")}
WEATHER_WORDS = {
    "clear": ("",),
    "rain": ("in the rain", "in rain"),
    "snowfall": ("in falling snow", "while it snows"),
    "fog": ("in fog", "in the mist"),
}
_OPENINGS = ("", "", "", "", "a photo of ", "a picture of ", "a drawing of ", "an image of ")
_SAME_PLURAL = (
    "fish",
    "fruit",
    "koi",
    "tuna",
    "trout",
    "perch",
    "discus",
    "grapes",
    "cherries",
    "blueberries",
)


@dataclass(frozen=True, slots=True)
class Mention:
    """Subject as a prompt names it; `colour` is stated of kinds only."""

    name: str
    count: int = 1
    size: str = ""
    colour: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What a prompt asks for; empty words are left open."""

    mentions: tuple[Mention, ...]
    relations: tuple[str, ...] = ()
    background: str = ""
    light: str = ""
    weather: str = ""


def plural(name: str) -> str:
    """Return the plural of a name: of its last word."""
    if name in KINDS:
        return KINDS[name].plural
    if name.endswith(_SAME_PLURAL):
        return name
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")


def is_plural(name: str) -> bool:
    """Return whether a name takes no article: "grapes"."""
    return name.endswith(("grapes", "cherries", "blueberries"))


def _mention_words(rng: random.Random, mention: Mention) -> str:
    """Write one subject: "two small puffins"."""
    adjectives = [rng.choice(SIZE_WORDS[mention.size]), mention.colour]
    if mention.count == 1:
        phrase = " ".join(word for word in (*adjectives, mention.name) if word)
        return phrase if is_plural(mention.name) else f"{_article(phrase)} {phrase}"
    words = (rng.choice(COUNTS[mention.count]), *adjectives, plural(mention.name))
    return " ".join(word for word in words if word)


def _article(phrase: str) -> str:
    """Return "a" or "an"."""
    return "an" if phrase[0] in "aeiou" else "a"


def write_prompt(rng: random.Random, request: Request) -> str:
    """Write a prompt; the place and the light may come first or last."""
    between = (*request.relations, *["beside"] * (len(request.mentions) - 1 - len(request.relations)))
    text = _mention_words(rng, request.mentions[0])
    for number, (relation, mention) in enumerate(zip(between, request.mentions[1:], strict=True)):
        comma = relation == "beside" and number == 0 and len(request.mentions) == 3 and rng.random() < 0.7
        joint = "," if comma else f" {rng.choice(RELATION_WORDS[relation])}"
        text += f"{joint} {_mention_words(rng, mention)}"
    tail = [
        rng.choice(words)
        for words in (
            PLACE_WORDS.get(request.background, ("",)),
            LIGHT_WORDS.get(request.light, ("",)),
            WEATHER_WORDS.get(request.weather, ("",)),
        )
    ]
    circumstances = " ".join(word for word in tail if word)
    opening = rng.choice(_OPENINGS)
    if circumstances and rng.random() < 0.12:
        return f"{circumstances}, {text}"
    return " ".join(part for part in (opening + text, circumstances) if part)


def request_of(scene: Scene, names: Sequence[str], colours: Sequence[str]) -> Request:
    """Return what a scene shows, with these names and colours of its subjects."""
    mentions = tuple(
        Mention(name, subject.count, subject.size, colour)
        for name, colour, subject in zip(names, colours, scene.subjects, strict=True)
    )
    return Request(mentions, scene.relations, scene.background, scene.light, scene.weather)
