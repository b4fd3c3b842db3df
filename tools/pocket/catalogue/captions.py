"""Captions of the catalogue world, by name or by description, with the looks that they state.

A description is the kind's noun with its main colour, a word for its shape, and some clauses about its parts:
"a buff bird with an orange fan crest and barred black wings". Not covered: relations and counts are written,
but `Text.fits` does not compare them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter

from pleinair.tools.pocket.catalogue.drawings.palette import COLOURS, rgb
from pleinair.tools.pocket.catalogue.language.prompts import request_of, write_prompt
from pleinair.tools.pocket.catalogue.scenes import Scene
from pleinair.tools.pocket.catalogue.species import KINDS, Looks, Species

CLEAR = 90  # distance of two colours, in bytes, from which one is not mistaken for the other
_MARKS = frozenset(mark for kind in KINDS.values() for mark in kind.marks)
_COLOUR_WORDS = {
    "ink": "black",
    "rubber": "black",
    "horn": "amber",
    "leaf": "light green",
    "stem": "light green",
    "glass": "pale blue",
    "sky": "light blue",
}


@dataclass(frozen=True, slots=True)
class Clause:
    """Words about a part, with the keys of `Species.looks` as format fields.

    `hidden` has the choices of a mark with which the part is not visible; `words` writes choices differently.
    """

    template: str
    hidden: Mapping[str, Sequence[str]] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys that the clause states."""
        return tuple(name for _, name, _, _ in Formatter().parse(self.template) if name)

    def is_visible(self, looks: Looks) -> bool:
        """Return whether a species of these looks shows the part."""
        return not any(looks[mark] in choices for mark, choices in self.hidden.items())

    def write(self, looks: Looks) -> str:
        """Return the words, with an article unless they end in a plural."""
        values = {
            key: self.words.get(looks[key], looks[key]) if key in _MARKS else colour_word(looks[key])
            for key in self.keys
        }
        text = self.template.format_map(values)
        return text if text.endswith(("s", "flesh")) else with_article(text)


@dataclass(frozen=True, slots=True)
class Description:
    """How a kind is described: the part of its main colour, adjectives of a mark's choices, and clauses."""

    colour: str
    shape: str
    adjectives: Mapping[str, str]
    clauses: Sequence[Clause]


_PATTERNS = {
    "barred": "bars",
    "lined": "lines",
    "spotted": "spots",
    "banded": "bands",
    "striped": "stripes",
    "veined": "veins",
    "eyes": "eyespots",
}
_CLOSED = ("tulip", "bell", "globe", "spike", "rose")  # flowers without a visible heart
DESCRIPTIONS: Mapping[str, Description] = {
    "bird": Description(
        "body",
        "build",
        {"wader": "wading", "swimmer": "swimming", "upright": "upright"},
        (
            Clause("{crest_colour} {crest} crest", {"crest": ("none",)}, {"peak": "pointed"}),
            Clause("{wings} {wing} wings"),
            Clause("{head} head"),
            Clause("{breast} breast"),
            Clause(
                "{tail} {tail_colour} tail", {"build": ("upright",)}, {"fork": "forked", "train": "round"}
            ),
            Clause("{bill} {bill_colour} bill"),
            Clause("{face_colour} {face}", {"face": ("plain",)}),
            Clause("{legs} legs", {"build": ("swimmer",)}),
        ),
    ),
    "butterfly": Description(
        "fore",
        "outline",
        {"tailed": "tailed", "pointed": "sharp-winged"},
        (
            Clause("{mark} {pattern}", {"pattern": ("plain",)}, _PATTERNS),
            Clause("{hind} hindwings"),
            Clause("{border} {border_colour} border", {"border": ("none",)}),
            Clause("{body} body"),
        ),
    ),
    "fish": Description(
        "body",
        "build",
        {
            "disc": "disc-shaped",
            "long": "slender",
            "shark": "shark-like",
            "horse": "curled",
            "puffer": "inflated",
        },
        (
            Clause("{mark} {pattern}", {"pattern": ("plain", "half")}, _PATTERNS),
            Clause("{mark} front {pattern}", {"pattern": ("plain", "barred", "lined", "spotted")}),
            Clause("{belly} belly"),
            Clause("{fin} {fin_colour} fins", {"build": ("horse", "shark")}),
            Clause(
                "{tail} {fin_colour} tail",
                {"build": ("horse", "shark")},
                {"fan": "fan-shaped", "fork": "forked", "veil": "veil-like"},
            ),
            Clause("{fin_colour} fins", {"build": ("oval", "disc", "long", "puffer")}),
        ),
    ),
    "flower": Description(
        "petal",
        "bloom",
        {
            "rays": "many-petalled",
            "tulip": "cup-shaped",
            "bell": "bell-shaped",
            "star": "star-shaped",
            "globe": "globe-shaped",
            "spike": "spiked",
            "trumpet": "trumpet-shaped",
            "rose": "double",
        },
        (
            Clause(
                "{mark} {petal_mark}",
                {"petal_mark": ("plain",), "bloom": ("globe", "rose", "trumpet")},
                {"tipped": "tips", "spotted": "spots"},
            ),
            Clause(
                "{heart} {heart_colour} heart",
                {"bloom": ("tulip", "bell", "globe", "spike", "rose", "trumpet")},
            ),
            Clause(
                "{heart_colour} trumpet",
                {"bloom": ("daisy", "rays", "tulip", "bell", "star", "globe", "spike", "rose")},
            ),
            Clause("{leaf} leaves"),
        ),
    ),
    "mushroom": Description(
        "cap_colour",
        "cap",
        {
            "dome": "domed",
            "cone": "conical",
            "flat": "flat",
            "funnel": "funnel-shaped",
            "honeycomb": "honeycombed",
            "ball": "ball-shaped",
        },
        (
            Clause(
                "{mark} {pattern}",
                {"pattern": ("plain",), "cap": ("honeycomb",)},
                _PATTERNS,
            ),
            Clause("{stem_mark} {stem} stem"),
            Clause("{gills} gills", {"cap": ("funnel", "honeycomb", "ball")}),
        ),
    ),
    "fruit": Description(
        "skin",
        "build",
        {
            "round": "round",
            "long": "long",
            "pear": "pear-shaped",
            "cluster": "clustered",
            "crowned": "oval",
            "slice": "sliced",
            "halved": "halved",
            "berry": "paired",
        },
        (
            Clause(
                "{mark} {pattern}",
                {"pattern": ("plain",), "build": ("slice", "halved", "berry")},
                _PATTERNS,
            ),
            Clause("{flesh} flesh", {"build": ("round", "long", "pear", "cluster", "crowned", "berry")}),
            Clause(
                "{leaf} {leaf_mark}",
                {"leaf_mark": ("none",), "build": ("long", "slice", "halved")},
            ),
        ),
    ),
    "dog": Description(
        "coat",
        "build",
        {"long": "low", "tall": "tall", "stocky": "stocky", "fluffy": "fluffy"},
        (
            Clause("{mark} {pattern}", {"pattern": ("plain",)}, {"spotted": "spots", "patched": "patches"}),
            Clause("{ears} {ear_colour} ears", words={"bat": "bat-like"}),
            Clause("{snout} snout"),
            Clause(
                "{tail} tail",
                words={"up": "raised", "curl": "curled", "pompon": "tufted", "feather": "feathery"},
            ),
            Clause("{belly} belly"),
            Clause("{collar} collar"),
        ),
    ),
    "car": Description(
        "body",
        "build",
        {
            "beetle": "rounded",
            "convertible": "open-topped",
            "pickup": "open-backed",
            "van": "boxy",
            "bus": "many-windowed",
            "racer": "single-seat",
            "lorry": "loaded",
            "tractor": "big-wheeled",
        },
        (
            Clause("{top_colour} {top}", {"top": ("none",), "build": ("racer", "convertible", "tractor")}),
            Clause("{mark} {pattern}", {"pattern": ("plain",)}, {"two-tone": "lower half"}),
            Clause("{roof} roof", {"build": ("van", "bus", "racer")}),
            Clause("{wheel} wheels"),
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Look:
    """What a text states of a subject: the kind, and some or all of `Species.looks`."""

    kind: str
    stated: Mapping[str, str] = field(default_factory=dict, hash=False)
    named: bool = False

    def fits(self, species: Species) -> bool:
        """Return whether a species has everything that is stated."""
        return self.kind == species.kind and all(
            colour_word(value) == colour_word(species.looks[key]) for key, value in self.stated.items()
        )

    def contradicts(self, species: Species) -> bool:
        """Return whether the text is clearly not about a species; similar colours do not contradict."""
        if self.kind != species.kind or self.named:
            return not self.fits(species)
        return any(_differ(value, species.looks[key]) for key, value in self.stated.items())


@dataclass(frozen=True, slots=True)
class Text:
    """Text with its meaning: a look for each subject, and the background if it names one."""

    words: str
    looks: tuple[Look, ...]
    background: str = ""

    def fits(self, scene: Scene) -> bool:
        """Return whether the text describes the scene, whatever else it leaves open."""
        return (
            self.background in ("", scene.background)
            and len(self.looks) == len(scene.subjects)
            and all(any(look.fits(s.species) for s in scene.subjects) for look in self.looks)
        )


def colour_word(colour: str) -> str:
    """Return the word of a colour in captions; other words are returned as they are."""
    if colour.startswith("dark "):
        return f"dark {colour_word(colour.removeprefix('dark '))}"
    return _COLOUR_WORDS.get(colour, colour)


def with_article(phrase: str) -> str:
    """Return the phrase with "a" or "an" before it."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _differ(first: str, second: str) -> bool:
    """Return whether two colours, or two choices of a mark, are clearly different."""
    if first.removeprefix("dark ") in COLOURS and second.removeprefix("dark ") in COLOURS:
        squares = sum((a - b) ** 2 for a, b in zip(rgb(first), rgb(second), strict=True))
        return squares > CLEAR**2
    return first != second


def named(species: Species) -> Text:
    """Return the text of a species' name."""
    return Text(species.name, (Look(species.kind, species.looks, named=True),))


def describe(rng: random.Random, species: Species, clauses: int = 4) -> Text:
    """Return a description with up to so many clauses; those that tell more of the species come first.

    A clause tells something where it states a mark that is not the kind's default or a colour that is not
    the main one.
    """
    description = DESCRIPTIONS[species.kind]
    visible = [clause for clause in description.clauses if clause.is_visible(species.looks)]
    rng.shuffle(visible)
    chosen = sorted(visible, key=lambda clause: -_weight(clause, species))[:clauses]
    text = _short(species)
    with_clauses = [clause.write(species.looks) for clause in chosen]
    words = text.words + (f" with {_listed(with_clauses)}" if with_clauses else "")
    keys = {key for clause in chosen for key in clause.keys}
    return Text(words, (Look(species.kind, {**text.looks[0].stated, **_pick(species, keys)}),))


def _listed(phrases: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(part for part in (", ".join(phrases[:-1]), phrases[-1]) if part)


def _weight(clause: Clause, species: Species) -> int:
    marks, main = KINDS[species.kind].marks, species.looks[DESCRIPTIONS[species.kind].colour]
    return sum(species.looks[key] != (marks[key][0] if key in marks else main) for key in clause.keys)


def _pick(species: Species, keys: set[str]) -> dict[str, str]:
    return {key: species.looks[key] for key in keys}


def _short(species: Species, *, shape: bool = True) -> Text:
    """Return a description without clauses: "wading red bird"."""
    description = DESCRIPTIONS[species.kind]
    adjective = description.adjectives.get(species.looks[description.shape], "") if shape else ""
    words = (adjective, colour_word(species.looks[description.colour]), species.kind)
    keys = {description.colour} | ({description.shape} if adjective else set())
    return Text(" ".join(word for word in words if word), (Look(species.kind, _pick(species, keys)),))


def phrase(rng: random.Random, species: Species) -> Text:
    """Return a phrase for one subject: its name, a description, or only its colour and kind."""
    text = _bare_phrase(rng, species)
    words = rng.choice((text.words, with_article(text.words), f"a photo of {with_article(text.words)}"))
    return Text(words, text.looks)


def _bare_phrase(rng: random.Random, species: Species) -> Text:
    chance = rng.random()
    if species.name and chance < 0.6:
        return named(species)
    if chance < 0.85:
        return describe(rng, species, rng.randint(1, 4))
    if chance < 0.9:
        return Text(species.kind, (Look(species.kind),))
    return _short(species, shape=rng.random() < 0.4)


def caption(rng: random.Random, scene: Scene, *, by_name: bool) -> Text:
    """Return a caption of the scene, with the species' names or only with descriptions.

    Several of one species are described without clauses; a subject without a name is described.
    """
    texts = [
        named(subject.species)
        if by_name and subject.species.name
        else describe(rng, subject.species, 4 if len(scene.subjects) == 1 else 2)
        if subject.count == 1
        else _short(subject.species)
        for subject in scene.subjects
    ]
    request = request_of(scene, [text.words for text in texts], [""] * len(texts))
    return Text(write_prompt(rng, request), tuple(text.looks[0] for text in texts), scene.background)


def scene_text(rng: random.Random, scene: Scene) -> Text:
    """Return a caption of the scene, or a phrase if there is one subject."""
    if len(scene.subjects) == 1 and rng.random() < 0.5:
        return phrase(rng, scene.subjects[0].species)
    return caption(rng, scene, by_name=rng.random() < 0.6)
