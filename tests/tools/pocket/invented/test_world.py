"""The miniature world: its species, seeds, scenes and renderer."""

import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from support.species import held_out_rng

from pleinair.tools.pocket.invented.backgrounds import BACKGROUNDS
from pleinair.tools.pocket.invented.shapes import PALETTE
from pleinair.tools.pocket.invented.world import KINDS, SPECIES, Scene, boxes, random_scene, render


def test_tiers_have_their_shares() -> None:
    counts = Counter(species.tier for species in SPECIES)
    assert counts == {"known": 54, "rare": 12, "novel": 6}
    assert {species.kind for species in SPECIES if species.tier == "novel"} == set(KINDS)


def test_names_and_first_words_are_unique() -> None:
    assert len({species.name.split()[0] for species in SPECIES}) == len(SPECIES)
    assert all(len(species.name.split()) == 2 for species in SPECIES)


@pytest.mark.parametrize("kind", KINDS)
def test_two_species_of_a_kind_never_share_both_colours(kind: str) -> None:
    looks = [(s.body, s.accent) for s in SPECIES if s.kind == kind]
    assert len(set(looks)) == len(looks)


def test_scenes_and_images_follow_from_the_seed() -> None:
    first, again = (random_scene(held_out_rng(3), SPECIES[:2]) for _ in range(2))
    assert first == again
    assert render(first).tobytes() == render(again).tobytes()


@pytest.mark.parametrize(("relation", "axis"), [("beside", 0), ("left of", 0), ("above", 1)])
def test_relations_order_the_boxes(relation: str, axis: int) -> None:
    for index in range(20):
        first, second = boxes(random_scene(held_out_rng(index), SPECIES[:2], relation=relation))
        assert first[axis + 2] < second[axis] + 0.1


def test_one_or_two_subjects_and_known_relations_only() -> None:
    with pytest.raises(ValueError, match="one or two subjects, got 3"):
        random_scene(random.Random(0), SPECIES[:3])
    with pytest.raises(ValueError, match="relation must be"):
        random_scene(random.Random(0), SPECIES[:2], relation="inside")


@pytest.mark.parametrize("species", SPECIES, ids=lambda s: s.name)
def test_both_colours_are_visible_and_only_inside_the_box(species: object) -> None:
    assert isinstance(species, type(SPECIES[0]))
    scene = random_scene(held_out_rng(1), [species], background="sky")
    image = np.asarray(render(scene)).astype(int)
    empty = np.asarray(render(Scene((), "sky", scene.seed))).astype(int)
    for colour in (species.body, species.accent):
        assert (np.abs(image - PALETTE[colour]).sum(axis=2) < 12).sum() > 40
    ys, xs = np.nonzero(np.abs(image - empty).sum(axis=2) > 30)
    x0, y0, x1, y1 = (64 * edge for edge in boxes(scene)[0])
    assert x0 - 1.5 < xs.min() and xs.max() < x1 + 1.5
    assert y0 - 1.5 < ys.min() and ys.max() < y1 + 1.5


def test_backgrounds_differ() -> None:
    images = [np.asarray(render(Scene((), name, 1))).astype(int) for name in BACKGROUNDS]
    assert all(np.abs(a - b).mean() > 5 for a, b in combinations(images, 2))


def test_size_is_an_argument() -> None:
    assert render(random_scene(random.Random(0), SPECIES[:1]), size=32).size == (32, 32)
