"""Labelled images of the catalogue world: strangers, owner maps, and what is never in a training."""

import random

import numpy as np
import pytest

from pleinair.tools.pocket.catalogue.sampling import VISIBLE, difference, draw_scene, impostor, stranger
from pleinair.tools.pocket.catalogue.scenes import Subject, boxes, place_scene
from pleinair.tools.pocket.catalogue.species import BY_NAME, SPECIES, plain
from pleinair.tools.pocket.training.encoder import patch_owners
from pleinair.tools.pocket.training.images import TAUGHT, choose_species, make_sample, owner_map


def test_an_impostor_visibly_is_no_species() -> None:
    rng = random.Random(0)
    for species in rng.sample(SPECIES, 40):
        look = impostor(rng, species)
        assert (look.kind, look.name) == (species.kind, "")
        assert difference(look) >= VISIBLE
        assert difference(species) == 0


def test_strangers_have_no_name_and_visibly_are_no_species() -> None:
    rng = random.Random(1)
    looks = [stranger(rng, rng.choice(SPECIES)) for _ in range(60)]
    assert {look.name for look in looks} == {""}
    assert min(difference(look) for look in looks) >= VISIBLE


def test_a_plain_red_fruit_is_an_apple_and_no_stranger() -> None:
    assert difference(plain("fruit", "red")) < VISIBLE


def test_no_novel_species_is_drawn() -> None:
    rng = random.Random(2)
    drawn = [s for _ in range(300) for s in choose_species(rng, TAUGHT, strangers=0.3)]
    novel = [s.looks for s in SPECIES if s.tier == "novel"]
    assert not any(s.looks in novel for s in drawn)
    assert {s.tier for s in drawn if s.name} == {"known", "rare"}


def test_numbers_of_species_are_drawn_by_their_weights() -> None:
    rng = random.Random(5)
    assert {len(choose_species(rng, TAUGHT, strangers=0, counts=(0, 0, 1))) for _ in range(20)} == {3}


def test_a_scene_has_its_species_in_order() -> None:
    rng = random.Random(3)
    for _ in range(50):
        species = choose_species(rng, TAUGHT, strangers=0.3)
        assert [subject.species for subject in draw_scene(rng, species).subjects] == species


@pytest.mark.parametrize("relation", ["left of", "above"])
def test_owners_lie_within_their_boxes(relation: str) -> None:
    pair = [Subject(BY_NAME["hoopoe"]), Subject(BY_NAME["taxi"])]
    scene = place_scene(random.Random(4), pair, [relation])
    owner = owner_map(scene)
    assert owner.shape == (24, 24)
    for figure, (x0, y0, x1, y1) in zip(scene.figures, boxes(scene), strict=True):
        rows, columns = np.nonzero(owner == figure.subject + 1)
        assert len(rows) > 20
        assert x0 * 24 - 1 <= columns.min() and columns.max() <= x1 * 24
        assert y0 * 24 - 1 <= rows.min() and rows.max() <= y1 * 24


def test_what_is_in_front_owns_the_cells() -> None:
    pair = [Subject(BY_NAME["crow"]), Subject(BY_NAME["taxi"])]
    scenes = [place_scene(random.Random(5), pair, [relation]) for relation in ("in front of", "behind")]
    crows = [(owner_map(scene) == 1).sum() for scene in scenes]
    alone = [(owner_map(place_scene(random.Random(5), pair[:1])) == 1).sum() for _ in scenes]
    assert 0 < crows[0] < alone[0]
    taxi = scenes[0].figures[0]
    assert taxi.subject == 1


def test_a_sample_is_a_rendered_scene() -> None:
    sample = make_sample(draw_scene(random.Random(6), [BY_NAME["hoopoe"]]))
    assert sample.pixels.shape == (96, 96, 3)
    assert sample.pixels.dtype == np.uint8
    assert set(np.unique(sample.owner)) == {-1, 0, 1}


def test_a_patch_belongs_to_whom_most_of_its_cells_belong() -> None:
    owner = np.zeros((1, 6, 6), dtype=np.int8)
    owner[0, :3, :3] = 1
    owner[0, 0, 0] = -1
    owner[0, :3, 3:5] = 2
    assert patch_owners(owner, 2).tolist() == [[1, -1, 0, 0]]
