"""Captions of the catalogue world: what they say, and which species and scenes they fit."""

import random
from dataclasses import replace

import pytest

from pleinair.tools.pocket.catalogue.captions import (
    DESCRIPTIONS,
    Look,
    Text,
    caption,
    describe,
    named,
    phrase,
    scene_text,
)
from pleinair.tools.pocket.catalogue.scenes import Scene, Subject, place_scene
from pleinair.tools.pocket.catalogue.species import BY_NAME, KINDS, SPECIES, Species, invent


def scene_of(*species: Species, count: int = 1) -> Scene:
    return place_scene(random.Random(1), [Subject(s, count) for s in species], background="meadow")


def recoloured(species: Species, **looks: str) -> Species:
    return replace(species, name="", looks={**species.looks, **looks})


def test_every_field_of_a_description_is_a_part_or_a_mark_of_the_kind() -> None:
    for kind, description in DESCRIPTIONS.items():
        looks = KINDS[kind].marks.keys() | KINDS[kind].colours.keys()
        fields = {description.colour, description.shape}
        for clause in description.clauses:
            fields |= {*clause.keys, *clause.hidden}
            choices = {choice for mark in KINDS[kind].marks for choice in KINDS[kind].marks[mark]}
            assert {choice for hidden in clause.hidden.values() for choice in hidden} <= choices
        assert fields <= looks
        assert description.adjectives.keys() <= set(KINDS[kind].marks[description.shape])
    assert DESCRIPTIONS.keys() == KINDS.keys()


def test_a_description_tells_the_most_distinctive_parts() -> None:
    words = describe(random.Random(0), BY_NAME["hoopoe"], 2).words
    assert words.startswith("buff bird with ")
    assert "an orange fan crest" in words
    assert "barred black wings" in words


def test_a_colour_and_a_mark_of_one_word_are_told_apart() -> None:
    words = describe(random.Random(0), BY_NAME["apple"]).words
    assert words == "round red fruit with a light green leaf"


def test_descriptions_of_all_species_fit_them_and_are_not_their_names() -> None:
    rng = random.Random(2)
    for species in SPECIES:
        text = describe(rng, species)
        assert text.looks[0].fits(species)
        assert not text.looks[0].contradicts(species)
        assert text.words.endswith(species.kind) or f"{species.kind} with " in text.words


def test_full_descriptions_tell_nearly_all_species_apart() -> None:
    """Not all: that a part is missing is not stated."""
    rng = random.Random(3)
    looks = {species.name: describe(rng, species, 9).looks[0] for species in SPECIES}
    alike = {name for name, look in looks.items() if sum(look.fits(s) for s in SPECIES) > 1}
    assert len(alike) < 0.08 * len(SPECIES), sorted(alike)


def test_a_name_fits_no_impostor_and_a_description_only_by_what_it_states() -> None:
    hoopoe = BY_NAME["hoopoe"]
    impostor = recoloured(hoopoe, crest_colour="blue")
    assert not named(hoopoe).looks[0].fits(impostor)
    assert named(hoopoe).looks[0].contradicts(impostor)
    assert Look("bird", {"body": "buff"}).fits(impostor)
    assert not Look("bird", {"crest_colour": "orange"}).fits(impostor)


@pytest.mark.parametrize(("colour", "fits", "contradicts"), [("black", True, False), ("blue", False, True)])
def test_colours_of_one_word_are_equal(colour: str, fits: bool, contradicts: bool) -> None:
    crow = recoloured(BY_NAME["crow"], body=colour)
    look = Look("bird", {"body": "ink"})
    assert (look.fits(crow), look.contradicts(crow)) == (fits, contradicts)


def test_similar_colours_do_not_contradict() -> None:
    look = Look("bird", {"body": "grey"})
    slate = recoloured(BY_NAME["crow"], body="slate")
    assert (look.fits(slate), look.contradicts(slate)) == (False, False)


def test_a_caption_by_name_has_the_names_and_one_by_description_has_none() -> None:
    scene = scene_of(BY_NAME["hoopoe"], BY_NAME["hot rod"])
    for seed in range(20):
        by_name = caption(random.Random(seed), scene, by_name=True)
        assert "hoopoe" in by_name.words
        assert "hot rod" in by_name.words
        by_description = caption(random.Random(seed), scene, by_name=False)
        assert "buff bird" in by_description.words
        assert "hoopoe" not in by_description.words
        assert by_name.fits(scene) and by_description.fits(scene)


def test_several_of_a_species_are_described_in_the_plural() -> None:
    words = caption(random.Random(0), scene_of(BY_NAME["hoopoe"], count=2), by_name=False).words
    assert "two buff birds" in words


def test_a_text_fits_scenes_with_its_subjects_and_its_place() -> None:
    text = named(BY_NAME["hoopoe"])
    both = scene_of(BY_NAME["hoopoe"], BY_NAME["crow"])
    assert text.fits(scene_of(BY_NAME["hoopoe"]))
    assert not text.fits(both)
    assert not text.fits(scene_of(BY_NAME["crow"]))
    assert not Text(text.words, text.looks, "city").fits(scene_of(BY_NAME["hoopoe"]))


def test_phrases_and_texts_of_any_look_fit_it() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        species = invent(rng) if seed % 2 else rng.choice(SPECIES)
        assert phrase(rng, species).looks[0].fits(species)
        assert scene_text(rng, scene_of(species)).fits(scene_of(species))
