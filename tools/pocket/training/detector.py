"""Training of the pocket concept detector on the frozen pocket encoder.

Some phrases fit; others name rivals of the same kind, share a colour, or describe what is nearly there. Some
images show spoilt subjects, half one species and half another, which fit no phrase. Rare species are in the
data, novel ones are not.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pleinair.tools.pocket.invented.prompts import PARTS, PLACES, RELATIONS
from pleinair.tools.pocket.invented.shapes import PALETTE
from pleinair.tools.pocket.invented.world import (
    KINDS,
    PATTERNS,
    Scene,
    Species,
    Subject,
    boxes,
    random_scene,
    render,
)
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.images import Rng, Sample
from pleinair.tools.pocket.training.presence import PHRASES, Query, View, World, fit, fitting_query
from pleinair.tools.pocket.training.scenes import (
    TAUGHT,
    Text,
    choose_species,
    impostor,
    owner_map,
    phrase,
    render_sample,
)
from pleinair.tools.pocket.training.streams import training_rng

FIRST_INDEX = 600_000_000


def _make_view(rng: Rng) -> View:
    """Render taught species, impostors and invented looks; one view in seven has a spoilt subject."""
    if rng.random() < 0.15:
        return _spoilt_view(rng)
    near = choose_species(rng, TAUGHT, strangers=0)
    species = [s if rng.random() < 0.7 else impostor(rng, s) for s in near]
    return View(render_sample(rng, species), tuple(near))


def _spoilt_view(rng: Rng) -> View:
    """Render a scene whose first subject is half one species and half another; it fits neither."""
    species = choose_species(rng, TAUGHT, strangers=0)
    rivals = [s for s in TAUGHT if s.kind == species[0].kind and _differ(s, species[0])]
    other = rng.choice(rivals)
    scene = random_scene(rng, species, relation=rng.choice(RELATIONS))
    subject = scene.subjects[0]
    twin = Scene((replace(subject, species=other), *scene.subjects[1:]), scene.background, scene.seed)
    merged = _merge(rng, np.asarray(render(scene)), np.asarray(render(twin)), subject)
    rest = Scene(scene.subjects[1:], scene.background, scene.seed)
    return View(Sample(merged, owner_map(rest), rest), (species[0], other, *species[1:]))


def _differ(first: Species, second: Species) -> bool:
    """Return whether two species share neither body nor accent colour."""
    return first.body != second.body and first.accent != second.accent


def _merge(
    rng: Rng, first: NDArray[np.uint8], second: NDArray[np.uint8], subject: Subject
) -> NDArray[np.uint8]:
    """Mix two renderings of a scene: their mean, or one half of the subject from each."""
    share = np.full(first.shape, rng.uniform(0.4, 0.6), dtype=np.float32)
    if rng.random() < 0.7:
        share[:] = 0
        vertical = rng.random() < 0.5
        cut = round((subject.x if vertical else subject.y) * len(first))
        (share[:, cut:] if vertical else share[cut:])[...] = 1
    mixed: NDArray[np.uint8] = (first * (1 - share) + second * share).round().astype(np.uint8)
    return mixed


def _make_queries(rng: Rng, view: View) -> list[Query]:
    """Return a phrase for every subject of the view, filled up to four with phrases that fit none."""
    species = [subject.species for subject in view.sample.scene.subjects]
    queries = [_positive(view, number, phrase(rng, s)) for number, s in enumerate(species)]
    while len(queries) < PHRASES:
        text = phrase(rng, rng.choice(_CANDIDATES)(rng, view))
        look = text.looks[0]
        full = look.accent is not None  # a name or a full description may be of a species that is near
        if not any(look.fits(s) for s in (species if full else (*view.near, *species))):
            queries.append(Query(text.words, False))
    return queries


def _positive(view: View, number: int, text: Text) -> Query:
    """Query for a subject; a loose phrase that fits two subjects covers both and has the first one's box."""
    scene = view.sample.scene
    fitting = [n for n, s in enumerate(scene.subjects, start=1) if text.looks[0].fits(s.species)]
    return fitting_query(text.words, boxes(scene)[number], view.sample, fitting)


def _rival(rng: Rng, view: View) -> Species:
    """Return a taught species of the same kind that shares a colour, or else just the kind."""
    near = rng.choice(view.near)
    kin = [s for s in TAUGHT if s.kind == near.kind and s != near]
    close = [s for s in kin if not _differ(s, near)]
    return rng.choice(close if close and rng.random() < 0.5 else kin)


def _other_pattern(rng: Rng, view: View) -> Species:
    near: Species = rng.choice(view.near)
    return replace(near, name="", pattern=rng.choice([p for p in PATTERNS if p != near.pattern]))


def _other_kind(rng: Rng, view: View) -> Species:
    near: Species = rng.choice(view.near)
    return replace(near, name="", kind=rng.choice([s.kind for s in TAUGHT if s.kind != near.kind]))


_CANDIDATES: Sequence[Callable[[Rng, View], Species]] = (
    lambda rng, view: rng.choice(TAUGHT),
    lambda rng, view: rng.choice(view.near),
    _rival,
    _rival,
    lambda rng, view: impostor(rng, rng.choice(view.near)),
    _other_pattern,
    _other_kind,
)


def _training_words() -> list[str]:
    """Return every word of the encoder's training texts."""
    names = " ".join(s.name for s in TAUGHT)
    places = " ".join(words for wordings in PLACES.values() for words in wordings)
    words = f"{names} {places} {' '.join((*KINDS, *PARTS.values(), *PALETTE, *PATTERNS))} a an photo of with"
    return sorted(set(words.split()))


def _rng(index: int) -> Rng:
    return training_rng(FIRST_INDEX + index)


def training_world() -> World:
    """Return what the training needs of the first world."""
    names = [species.name for species in TAUGHT]
    return World(_rng, _make_view, _make_queries, names, _training_words(), {})


def train(run: Run) -> None:
    """Train the detector on the run's encoder, calibrate it and write its folder."""
    sizes = run.size({"width": 96, "queries": 4, "heads": 4}, {"width": 32, "queries": 2})
    course = fit(run, training_world(), sizes)
    write_card(run.out / "detector", "Pocket concept detector", __doc__ or "", course)
