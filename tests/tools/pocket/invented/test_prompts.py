"""The grammar: what it writes it parses, and it refuses other text with a reason."""

import random

import pytest
from support.species import held_out_rng, random_species, species_named

from pleinair.tools.pocket.invented.backgrounds import BACKGROUNDS
from pleinair.tools.pocket.invented.prompts import (
    RELATIONS,
    Request,
    caption,
    describe,
    parse_prompt,
    relation_of,
    with_article,
    write_prompt,
)
from pleinair.tools.pocket.invented.world import SPECIES, random_scene


@pytest.mark.parametrize("index", range(200))
def test_parse_is_the_inverse_of_write(index: int) -> None:
    rng = held_out_rng(index)
    names = tuple(species.name for species in rng.sample(SPECIES, rng.choice((1, 2))))
    relation = rng.choice(RELATIONS) if len(names) == 2 else None
    request = Request(names, relation, rng.choice((*BACKGROUNDS, None)))
    assert parse_prompt(write_prompt(rng, request)) == request


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("A Velmora Finch", Request(("velmora finch",), None, None)),
        ("draw me a zorble gant at night.", Request(("zorble gant",), None, "night")),
        ("please paint the zorble gant and the dodo", Request(("zorble gant", "dodo"), "beside", None)),
        ("a dodo, in the snow", Request(("dodo",), None, "snow")),
        ("an orvo finch over an eider on sand", Request(("orvo finch", "eider"), "above", "desert")),
        ("make a spotted red car", Request(("spotted red car",), None, None)),
        ("a morel finch", Request(("morel finch",), None, None)),
        ("a great spotted woodpecker", Request(("great spotted woodpecker",), None, None)),
    ],
)
def test_other_wordings_and_unknown_names_are_parsed(text: str, request_: Request) -> None:
    assert parse_prompt(text) == request_


def test_every_species_that_may_be_invented_is_parsed() -> None:
    rng = random.Random(3)
    for species in (*SPECIES, *(random_species(rng) for _ in range(3000))):
        assert parse_prompt(with_article(species.name)).subjects == (species.name,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no subject"),
        ("a photo of ", "no subject|cannot read"),
        ("a finch riding a car", "cannot read"),
        ("3 finches", "cannot read"),
        ("a bird beside a car above a fish", "at most two subjects"),
        ("make the wren bigger", "cannot read 'the wren bigger' as a subject: 'bigger' after 'wren' is not"),
        ("a wren running fast", "'running fast' after 'wren' is not understood; write for example"),
        ("please draw the wren happier at night", "'happier' after 'wren'"),
        ("make two wrens", "of each there is one, not 'two'"),
        ("finches", "of each there is one, not 'finches'"),
        ("two dodos beside a car", "not 'two'"),
        ("the meaning of life and everything else besides", "cannot read"),
    ],
)
def test_text_outside_the_grammar_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_prompt(text)


def test_captions_name_or_describe() -> None:
    finch = species_named("velmora finch")
    scene = random_scene(random.Random(0), [finch], background="snow")
    assert "velmora finch" in caption(random.Random(0), scene, by_name=True)
    described = caption(random.Random(0), scene, by_name=False)
    assert describe(finch) in described
    assert "velmora" not in described


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_relation_of_a_scene(relation: str) -> None:
    scene = random_scene(held_out_rng(2), SPECIES[:2], relation=relation)
    assert relation_of(scene) == ("left of" if relation == "beside" else relation)
    assert relation_of(random_scene(held_out_rng(2), SPECIES[:1])) is None
