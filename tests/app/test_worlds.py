"""Which miniature world a run's settings mean."""

from __future__ import annotations

import pytest

from pleinair.app.pocket import language_of, world_of
from pleinair.app.runs.prompts import request_from
from pleinair.app.settings import load
from pleinair.tools.types import BadInput

FIRST = {"generator.folder": "pocket/generator"}


@pytest.mark.parametrize(
    ("overrides", "world"),
    [
        ({}, "catalogue"),
        (FIRST, "invented"),
        ({"generator.folder": "models/own"}, "catalogue"),
        ({"generator.folder": "models/own", "encoder.model": "local-dir:pocket/encoder"}, "invented"),
        (
            {"generator.folder": "own", "encoder.model": "ViT-B-32", "mllm.world": "invented"},
            "invented",
        ),
    ],
)
def test_the_generator_or_else_another_model_has_the_world(overrides: dict[str, str], world: str) -> None:
    settings = load("pocket", overrides)
    assert world_of(settings) == world
    assert settings.mllm.arguments["world"] == world
    assert ("hoopoe" in language_of(settings).names) == (world == "catalogue")


def test_a_prompt_is_stored_in_the_generators_words() -> None:
    settings = load("pocket")
    request = request_from(
        "Please draw two Puffins at the beach, in the evening!", settings=settings, graph="pleinair"
    )
    assert request.prompt == "two puffins on a beach at sunset"
    assert [note.kind for note in request.notes] == ["wording"]
    again = request_from(request.prompt, settings=settings, graph="pleinair")
    assert (again.prompt, again.notes) == (request.prompt, ())


def test_a_note_says_what_was_left_out_and_read_as_another_word() -> None:
    settings = load("pocket")
    request = request_from("a cute hoopo, high quality", settings=settings, graph="pleinair")
    (note,) = request.notes
    assert note.about == "a hoopoe" and "“hoopo” as “hoopoe”" in note.text and "high quality" in note.text


def test_a_line_of_a_chat_stays_as_it_is() -> None:
    settings = load("pocket")
    assert request_from("Add a dog!", settings=settings, graph="react").prompt == "Add a dog!"


def test_what_the_world_does_not_have_is_bad_input_with_the_nearest_names() -> None:
    with pytest.raises(BadInput, match=r"'an osprey': I cannot draw an osprey; .* bald eagle"):
        request_from("an osprey", settings=load("pocket"), graph="pleinair")
