"""Miniature world: its species, its scenes and their renderer.

The world mirrors fine-grained photo data sets (birds, cars, flowers): many named species of each kind,
distinguished by two colours and a pattern. Everything follows from seeds. Not covered: perspective, light,
occlusion, or more than two subjects.
"""

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from pleinair.tools.pocket.invented.backgrounds import BACKGROUNDS, paint_background
from pleinair.tools.pocket.invented.shapes import COLOURS, DRAW, PALETTE, Points

SIZE = 64
SUPERSAMPLING = 3
NOUNS: dict[str, tuple[str, ...]] = {
    "bird": ("finch", "warbler", "wren"),
    "car": ("coupe", "roadster", "sedan"),
    "flower": ("lily", "daisy", "aster"),
    "fish": ("tetra", "guppy", "cod"),
    "mushroom": ("bolete", "morel", "toadstool"),
    "balloon": ("balloon", "aerostat", "floater"),
}
KIND_OF_NOUN = {noun: kind for kind, nouns in NOUNS.items() for noun in (*nouns, kind)}
KINDS: tuple[str, ...] = tuple(NOUNS)
PATTERNS: tuple[str, ...] = ("plain", "striped", "spotted")
BODY_COLOURS: tuple[str, ...] = tuple(c for c in PALETTE if c not in ("white", "black"))
SPECIES_SEED = 2026
FIRST_NAME = "velmora finch"

_ONSETS = tuple("b br d dr f g gl h j k kr l m n p pl qu r s t v z".split())
_VOWELS = ("a", "e", "i", "o", "u")
_MIDDLES = ("l", "lm", "r", "rn", "n", "nd", "v", "st", "sk", "m", "b", "t")
_ENDINGS = ("a", "o", "is", "un", "el", "ar", "et", "ix", "os", "ane", "ith", "ur")

Tier = Literal["known", "rare", "novel"]
TIERS: tuple[Tier, ...] = ("known",) * 9 + ("rare",) * 2 + ("novel",)


@dataclass(frozen=True, slots=True)
class Species:
    """Named species and its look; colours are keys of `PALETTE`, `pattern` is one of `PATTERNS`."""

    name: str
    kind: str
    tier: Tier
    body: str
    accent: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Subject:
    """Species in a scene: centre and scale in 0..1 of the frame, tilt in degrees, flip left to right."""

    species: Species
    x: float
    y: float
    scale: float
    tilt: float
    flip: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """One or two subjects before a background; `seed` moves the background's details."""

    subjects: tuple[Subject, ...]
    background: str
    seed: int


def _difference(first: str, second: str) -> float:
    """Return the distance of two palette colours, in 0..1 (red-mean approximation)."""
    (r1, g1, b1), (r2, g2, b2) = PALETTE[first], PALETTE[second]
    red = (r1 + r2) / 2
    squares = (2 + red / 256) * (r1 - r2) ** 2 + 4 * (g1 - g2) ** 2 + (3 - red / 256) * (b1 - b2) ** 2
    return math.sqrt(squares) / 765


@cache
def colour_pairs() -> tuple[tuple[str, str], ...]:
    """Return every (body, accent) pair of clearly different colours."""
    return tuple((b, a) for b, a in product(BODY_COLOURS, PALETTE) if _difference(b, a) > 0.3)


def _spread_pairs(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """Choose `count` pairs greedily, each as far as possible from those before it."""
    pool = list(colour_pairs())
    rng.shuffle(pool)
    pairs = [pool.pop()]
    while len(pairs) < count:
        best = max(
            pool, key=lambda p: min(_difference(p[0], q[0]) + 0.7 * _difference(p[1], q[1]) for q in pairs)
        )
        pairs.append(best)
        pool.remove(best)
    rng.shuffle(pairs)
    return pairs


def _invent_word(rng: random.Random) -> str:
    """Return one invented word of two or three syllables, starting with a consonant."""
    middles = [rng.choice(_VOWELS) + rng.choice(_MIDDLES) for _ in range(rng.choice((1, 2)))]
    return rng.choice(_ONSETS) + "".join(middles) + rng.choice(_ENDINGS)


def invent_name(rng: random.Random, kind: str) -> str:
    """Return a two-word name whose second word reveals `kind`."""
    return f"{_invent_word(rng)} {rng.choice(NOUNS[kind])}"


def _invent_species(rng: random.Random) -> Iterator[Species]:
    words: set[str] = set()
    for kind in KINDS:
        for tier, (body, accent) in zip(TIERS, _spread_pairs(rng, len(TIERS)), strict=True):
            name = invent_name(rng, kind) if words else FIRST_NAME
            while name.split()[0] in words:
                name = invent_name(rng, kind)
            words.add(name.split()[0])
            yield Species(name, kind, tier, body, accent, rng.choice(PATTERNS))


SPECIES: tuple[Species, ...] = tuple(_invent_species(random.Random(SPECIES_SEED)))


def random_scene(
    rng: random.Random,
    species: Sequence[Species],
    *,
    background: str | None = None,
    relation: str | None = None,
) -> Scene:
    """Return a scene of one or two species; the first is on the left, or on top if `relation` is 'above'.

    `relation` is 'beside' (the default), 'left of' or 'above'; the first two look the same.
    """
    if len(species) not in (1, 2):
        raise ValueError(f"a scene has one or two subjects, got {len(species)}")
    centres = [(0.5, 0.5)] if len(species) == 1 else _centres(relation or "beside")
    subjects = tuple(_place(rng, s, x, y, len(species)) for s, (x, y) in zip(species, centres, strict=True))
    return Scene(subjects, background or rng.choice(BACKGROUNDS), rng.randrange(2**31))


def _centres(relation: str) -> list[tuple[float, float]]:
    if relation not in ("beside", "left of", "above"):
        raise ValueError(f"relation must be 'beside', 'left of' or 'above', got {relation!r}")
    return [(0.5, 0.26), (0.5, 0.74)] if relation == "above" else [(0.26, 0.5), (0.74, 0.5)]


def _place(rng: random.Random, species: Species, x: float, y: float, count: int) -> Subject:
    scale, shift = (rng.uniform(0.64, 0.76), 0.05) if count == 1 else (rng.uniform(0.45, 0.49), 0.015)
    x, y = x + rng.uniform(-shift, shift), y + rng.uniform(-shift, shift)
    return Subject(species, x, y, scale, rng.uniform(-6, 6), rng.random() < 0.5)


@cache
def _shapes(kind: str, body: str, accent: str, pattern: str) -> tuple[tuple[str, Points], ...]:
    return tuple(DRAW[kind](body, accent, pattern))


def _outlines(subject: Subject) -> list[tuple[str, Points]]:
    """Return the subject's polygons in frame coordinates, 0..1, back to front."""
    angle = math.radians(subject.tilt)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    mirror = np.array([-1.0 if subject.flip else 1.0, 1.0])
    centre = np.array([subject.x, subject.y])
    s = subject.species
    shapes = _shapes(s.kind, s.body, s.accent, s.pattern)
    return [(colour, centre + (points * mirror) @ turn * subject.scale / 2) for colour, points in shapes]


def boxes(scene: Scene) -> list[tuple[float, float, float, float]]:
    """Return (x0, y0, x1, y1) in 0..1 for each subject, in the order of `scene.subjects`."""
    return [_box(np.concatenate([points for _, points in _outlines(subject)])) for subject in scene.subjects]


def _box(points: Points) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = points.min(axis=0).clip(0, 1), points.max(axis=0).clip(0, 1)
    return float(x0), float(y0), float(x1), float(y1)


def render(scene: Scene, size: int = SIZE) -> Image.Image:
    """Return the scene as an antialiased RGB image of `size` × `size` pixels."""
    large = size * SUPERSAMPLING
    canvas = paint_background(scene.background, scene.seed, large)
    draw = ImageDraw.Draw(canvas)
    for subject in scene.subjects:
        for colour, points in _outlines(subject):
            draw.polygon((points * large).ravel().tolist(), fill=COLOURS[colour])
    return canvas.reduce(SUPERSAMPLING)


@cache
def fingerprint() -> str:
    """Return twelve hexadecimal digits that identify this world: its species and its renderer's output."""
    digest = hashlib.sha256(repr(SPECIES).encode())
    for number, background in enumerate(BACKGROUNDS):
        rng, species = random.Random(number), SPECIES[number * len(TIERS)]
        for group in ([species], [species, SPECIES[0]]):
            digest.update(render(random_scene(rng, group, background=background)).tobytes())
    return digest.hexdigest()[:12]
