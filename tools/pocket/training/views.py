"""Make the training pairs of the detector: pictures, some of spoilt subjects, and phrases."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pleinair.tools.pocket.training.pictures import RELATIONS, Sample, choose, draw, impostor, owner_of
from pleinair.tools.pocket.training.texts import TAUGHT, Text, phrase
from pleinair.tools.pocket.world import PATTERNS, Scene, Species, Subject, boxes, random_scene, render

PHRASES = 4  # a picture
GRID = 8  # patches a side
Rng = random.Random


@dataclass(frozen=True, slots=True)
class View:
    """Hold a picture with the subjects that really stand in it, and species that come near to them."""

    sample: Sample
    near: tuple[Species, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """Hold one phrase about a view: whether it fits, the box it means, and the patches [64] it covers."""

    words: str
    fits: bool
    box: tuple[float, float, float, float]  # centre x, centre y, width, height; zeros where it does not fit
    patches: NDArray[np.float32]


def make_view(rng: Rng) -> View:
    """Render taught species, impostors and invented looks; one view in seven has a spoilt subject."""
    if rng.random() < 0.15:
        return _spoilt_view(rng)
    near = choose(rng, TAUGHT, strangers=0)
    shown = [s if rng.random() < 0.7 else impostor(rng, s) for s in near]
    return View(draw(rng, shown), tuple(near))


def _spoilt_view(rng: Rng) -> View:
    """Render a scene whose first subject is half one species and half another; it fits neither."""
    species = choose(rng, TAUGHT, strangers=0)
    rivals = [s for s in TAUGHT if s.kind == species[0].kind and _differs(s, species[0])]
    other = rng.choice(rivals)
    scene = random_scene(rng, species, relation=rng.choice(RELATIONS))
    subject = scene.subjects[0]
    twin = Scene((replace(subject, species=other), *scene.subjects[1:]), scene.background, scene.seed)
    pixels = _merge(rng, np.asarray(render(scene)), np.asarray(render(twin)), subject)
    rest = Scene(scene.subjects[1:], scene.background, scene.seed)
    return View(Sample(pixels, owner_of(rest), rest), (species[0], other, *species[1:]))


def _differs(first: Species, second: Species) -> bool:
    """Say whether two species share neither body nor accent colour."""
    return first.body != second.body and first.accent != second.accent


def _merge(rng: Rng, one: NDArray[np.uint8], two: NDArray[np.uint8], subject: Subject) -> NDArray[np.uint8]:
    """Mix two renderings of a scene: their mean, or one half of the subject from each."""
    share = np.full(one.shape, rng.uniform(0.4, 0.6), dtype=np.float32)
    if rng.random() < 0.7:
        share[:] = 0
        cut = rng.random() < 0.5
        at = round((subject.x if cut else subject.y) * len(one))
        (share[:, at:] if cut else share[at:])[...] = 1
    mixed: NDArray[np.uint8] = (one * (1 - share) + two * share).round().astype(np.uint8)
    return mixed


def ask(rng: Rng, view: View) -> list[Question]:
    """Ask about every subject of the view, and fill up with phrases that fit none."""
    scene = view.sample.scene
    questions = [_right(view, number, phrase(rng, s.species)) for number, s in enumerate(scene.subjects)]
    while len(questions) < PHRASES:
        text = phrase(rng, rng.choice(CANDIDATES)(rng, view))
        if not any(text.wishes[0].fits(s) for s in (*view.near, *(x.species for x in scene.subjects))):
            questions.append(_wrong(text))
        elif _is_full(text) and not any(text.wishes[0].fits(s.species) for s in scene.subjects):
            questions.append(_wrong(text))
    return questions


def _is_full(text: Text) -> bool:
    """Say whether the phrase names or fully describes a look."""
    return text.wishes[0].accent is not None


def _wrong(text: Text) -> Question:
    return Question(text.words, False, (0, 0, 0, 0), np.zeros(GRID * GRID, dtype=np.float32))


def _right(view: View, number: int, text: Text) -> Question:
    """Ask for a subject; a loose phrase that fits two subjects means both patches and the first box."""
    scene = view.sample.scene
    x0, y0, x1, y1 = boxes(scene)[number]
    fitting = [n for n, s in enumerate(scene.subjects, start=1) if text.wishes[0].fits(s.species)]
    cells = np.isin(view.sample.owner, fitting).astype(np.float32)
    patches = cells.reshape(GRID, 2, GRID, 2).mean((1, 3)).reshape(-1)
    return Question(text.words, True, ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), patches)


def _any_taught(rng: Rng, view: View) -> Species:
    return rng.choice(TAUGHT)


def _near(rng: Rng, view: View) -> Species:
    return rng.choice(view.near)


def _rival(rng: Rng, view: View) -> Species:
    """Return a taught species of the same kind that shares a colour, or else just the kind."""
    near = rng.choice(view.near)
    kin = [s for s in TAUGHT if s.kind == near.kind and s != near]
    close = [s for s in kin if not _differs(s, near)]
    return rng.choice(close if close and rng.random() < 0.5 else kin)


def _impostor(rng: Rng, view: View) -> Species:
    return impostor(rng, rng.choice(view.near))


def _other_pattern(rng: Rng, view: View) -> Species:
    near = rng.choice(view.near)
    return replace(near, name="", pattern=rng.choice([p for p in PATTERNS if p != near.pattern]))


def _other_kind(rng: Rng, view: View) -> Species:
    near = rng.choice(view.near)
    return replace(near, name="", kind=rng.choice([s.kind for s in TAUGHT if s.kind != near.kind]))


CANDIDATES: Sequence[Callable[[Rng, View], Species]] = (
    _any_taught,
    _near,
    _rival,
    _rival,
    _impostor,
    _other_pattern,
    _other_kind,
)
