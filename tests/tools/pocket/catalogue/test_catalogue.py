"""Tests of the catalogue world: its species, its scenes and their prompts."""

import random
from itertools import product

import numpy as np
import pytest

from pleinair.tools.pocket.catalogue.backgrounds import BACKGROUNDS, LIGHTS, WEATHERS
from pleinair.tools.pocket.catalogue.drawings.palette import rgb
from pleinair.tools.pocket.catalogue.language.prompts import (
    PLACE_WORDS,
    Mention,
    Request,
    plural,
    write_prompt,
)
from pleinair.tools.pocket.catalogue.scenes import RELATIONS, SIZE, Subject, boxes, place_scene, render
from pleinair.tools.pocket.catalogue.species import BY_NAME, KINDS, SPECIES, invent, plain

HOOPOE, TAXI = BY_NAME["hoopoe"], BY_NAME["taxi"]


def test_every_species_is_drawn_within_the_unit_square_in_named_colours() -> None:
    for species in SPECIES:
        points = np.concatenate([shape.points for shape in species.shapes if shape.clip is None])
        assert np.abs(points).max() == pytest.approx(1), species.name
        assert all(len(rgb(shape.colour)) == 3 for shape in species.shapes)


def test_no_two_species_look_alike_and_each_kind_has_every_tier() -> None:
    looks = {(species.kind, tuple(sorted(species.looks.items()))) for species in SPECIES}
    assert len(looks) == len(SPECIES) == len(BY_NAME) >= 190
    assert {(s.kind, s.tier) for s in SPECIES} == set(product(KINDS, ("known", "rare", "novel")))


def test_a_scene_is_the_same_from_the_same_seed() -> None:
    subjects = [Subject(HOOPOE), Subject(TAXI, count=2)]
    first, second = (place_scene(random.Random(7), subjects, ["behind"]) for _ in range(2))
    assert first == second
    assert render(first).tobytes() == render(second).tobytes()
    assert render(first).size == (SIZE, SIZE)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_subject_stands_out_in_every_place_and_light(background: str) -> None:
    for light, weather in product(LIGHTS, WEATHERS):
        scene = place_scene(
            random.Random(1), [Subject(HOOPOE)], background=background, light=light, weather=weather
        )
        with_it = np.asarray(render(scene), dtype=int)
        without = np.asarray(render(place_scene(random.Random(1), [Subject(TAXI)], background=background)))
        assert (np.abs(with_it - without).max(axis=-1) > 60).mean() > 0.1


@pytest.mark.parametrize(
    ("relation", "axis", "sign"),
    [("left of", 0, -1), ("right of", 0, 1), ("above", 1, -1), ("on", 1, -1), ("under", 1, 1)],
)
def test_relations_place_the_first_subject(relation: str, axis: int, sign: int) -> None:
    scene = place_scene(random.Random(3), [Subject(HOOPOE), Subject(TAXI)], [relation])
    centres = {figure.subject: (figure.x, figure.y) for figure in scene.figures}
    assert (centres[0][axis] - centres[1][axis]) * sign > 0.2


def test_what_is_in_front_is_painted_last() -> None:
    for relation, last in (("in front of", 0), ("behind", 1)):
        scene = place_scene(random.Random(3), [Subject(HOOPOE), Subject(TAXI)], [relation])
        assert scene.figures[-1].subject == last


def test_counts_draw_as_many_figures_within_the_frame() -> None:
    for count in (1, 2, 3):
        scene = place_scene(random.Random(5), [Subject(HOOPOE, count=count)])
        assert len(scene.figures) == count
        assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for x0, y0, x1, y1 in boxes(scene))


def test_unknown_relations_and_too_many_subjects_are_refused() -> None:
    with pytest.raises(ValueError, match="beneath"):
        place_scene(random.Random(0), [Subject(HOOPOE), Subject(TAXI)], ["beneath"])
    with pytest.raises(ValueError, match="one to three"):
        place_scene(random.Random(0), [Subject(HOOPOE)] * 4)


def test_colours_of_a_kind_change_its_main_parts() -> None:
    red = plain("car", "red")
    assert red.looks["body"] == "red"
    assert red.name == "car"
    assert plain("car", "blue").looks["body"] == "blue"


def test_marks_are_those_that_differ_from_the_kind() -> None:
    assert HOOPOE.marks == {"crest": "fan", "bill": "curved", "wings": "barred"}
    assert plain("bird").marks == {}


def test_invented_looks_are_drawn() -> None:
    for seed in range(60):
        species = invent(random.Random(seed))
        assert species.shapes
        assert species.name == ""


@pytest.mark.parametrize(
    ("name", "several"),
    [
        ("hoopoe", "hoopoes"),
        ("butterfly", "butterflies"),
        ("goldfish", "goldfish"),
        ("orange tip", "orange tips"),
        ("cherries", "cherries"),
        ("peach", "peaches"),
        ("city bus", "city buses"),
    ],
)
def test_plurals(name: str, several: str) -> None:
    assert plural(name) == several


def test_a_prompt_states_all_that_is_asked_for() -> None:
    request = Request(
        (Mention("hoopoe", 2, "small"), Mention("car", colour="red")), ("on",), "snow", "night", "rain"
    )
    for seed in range(40):
        prompt = write_prompt(random.Random(seed), request)
        for words in ("two", "hoopoes", "red car", "night moonlight", "rain"):
            assert any(word in prompt for word in (words, *words.split())), (words, prompt)
        assert any(place in prompt for place in PLACE_WORDS["snow"])
    assert set(RELATIONS) >= {"on", "under", "in front of"}
