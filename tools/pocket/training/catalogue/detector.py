"""Training of the catalogue world's concept detector on its frozen encoder.

Some phrases fit; others name rivals of the same kind or the species of which an impostor is shown, or
describe what is nearly there. Rare species are in the data, novel ones are not. Not covered: subjects that
are half one species and half another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from pleinair.tools.pocket.catalogue.captions import Text, phrase
from pleinair.tools.pocket.catalogue.sampling import draw_scene, impostor, stranger
from pleinair.tools.pocket.catalogue.scenes import boxes
from pleinair.tools.pocket.catalogue.species import KINDS, SPECIES, Species, plain
from pleinair.tools.pocket.training.card import write_card
from pleinair.tools.pocket.training.catalogue.cases import training_rng
from pleinair.tools.pocket.training.catalogue.encoder import training_texts
from pleinair.tools.pocket.training.catalogue.samples import (
    TAUGHT,
    choose_species,
    make_sample,
)
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.images import Rng
from pleinair.tools.pocket.training.presence import PHRASES, Query, View, World, fit, fitting_query

FIRST_INDEX = 1_200_000_000
TEXTS = 20_000  # from which the words are taken
STRANGERS = 0.3


def _make_view(rng: Rng) -> View:
    """Render taught species and strangers."""
    near = choose_species(rng, TAUGHT, strangers=0.0)
    species = [s if rng.random() >= STRANGERS else stranger(rng, s) for s in near]
    return View(make_sample(draw_scene(rng, species)), tuple(near))


def _make_queries(rng: Rng, view: View) -> list[Query]:
    """Return a phrase for every subject of the view, filled up to four with phrases that fit none."""
    species = [subject.species for subject in view.sample.scene.subjects]
    queries = [_positive(view, number, phrase(rng, s)) for number, s in enumerate(species)]
    while len(queries) < PHRASES:
        text = phrase(rng, rng.choice(_CANDIDATES)(rng, view))
        if all(text.looks[0].contradicts(s) for s in species):
            queries.append(Query(text.words, False))
    return queries


def _positive(view: View, subject: int, text: Text) -> Query:
    """Query for a subject; a phrase that fits several covers all and has the box of the subject's first."""
    scene = view.sample.scene
    fitting = [n for n, s in enumerate(scene.subjects, start=1) if text.looks[0].fits(s.species)]
    pairs = zip(scene.figures, boxes(scene), strict=True)
    box = next(box for figure, box in pairs if figure.subject == subject)
    return fitting_query(text.words, box, view.sample, fitting)


def _rival(rng: Rng, view: View) -> Species:
    near = rng.choice(view.near)
    return rng.choice([s for s in TAUGHT if s.kind == near.kind and s != near])


_CANDIDATES: Sequence[Callable[[Rng, View], Species]] = (
    lambda rng, view: rng.choice(TAUGHT),
    lambda rng, view: rng.choice(view.near),
    lambda rng, view: rng.choice(view.near),
    _rival,
    _rival,
    lambda rng, view: impostor(rng, rng.choice(view.near)),
    lambda rng, view: replace(plain(rng.choice(tuple(KINDS))), name=""),
)


def _rng(index: int) -> Rng:
    return training_rng(FIRST_INDEX + index)


def training_world(texts: int = TEXTS) -> World:
    """Return what the training needs of the catalogue world; the words are those of so many texts."""
    names = [species.name for species in TAUGHT]
    words = {word for text in (*training_texts(texts), *names) for word in re.findall(r"[^\W\d_]+", text)}
    untaught = {species.name: species.kind for species in SPECIES if species.tier == "novel"}
    return World(_rng, _make_view, _make_queries, names, sorted(words), untaught)


def train(run: Run) -> None:
    """Train the detector on the run's encoder, calibrate it and write its folder."""
    sizes = run.size(
        {"width": 96, "queries": 4, "heads": 4, "details": 128}, {"width": 32, "queries": 2, "details": 16}
    )
    course = fit(run, training_world(run.size(TEXTS, 100)), sizes)
    write_card(run.out / "detector", "Pocket concept detector", __doc__ or "", course, world="catalogue")
