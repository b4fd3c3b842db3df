"""Which miniature world a run's settings mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from pleinair.app.pocket import language_of, world_of
from pleinair.app.runs.prompts import request_from
from pleinair.app.settings import load
from pleinair.tools.model_files import folders
from pleinair.tools.types import BadInput

CATALOGUE = {"generator.folder": "pocket/catalogue/generator", "mllm.world": "catalogue"}


@pytest.mark.parametrize(
    ("overrides", "world"),
    [
        ({}, "invented"),
        (CATALOGUE, "catalogue"),
        ({"generator.folder": "pocket/catalogue/generator"}, "catalogue"),
        ({"generator.folder": "models/own", "mllm.world": "catalogue"}, "catalogue"),
    ],
)
def test_the_world_is_the_generators_or_else_the_chat_models(overrides: dict[str, str], world: str) -> None:
    settings = load("pocket", overrides)
    assert world_of(settings) == world
    assert ("hoopoe" in language_of(settings).names) == (world == "catalogue")


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the catalogue world have the models of the other one, which no test runs."""
    for name in ("encoder", "adaptor", "detector"):
        (tmp_path / name).symlink_to(folders.SHIPPED / name)
    (tmp_path / "catalogue").symlink_to(folders.SHIPPED)
    monkeypatch.setattr(folders, "SHIPPED", tmp_path)


def test_a_prompt_is_stored_in_the_generators_words() -> None:
    settings = load("pocket", CATALOGUE)
    request = request_from(
        "Please draw two Puffins at the beach, in the evening!", settings=settings, graph="pleinair"
    )
    assert request.prompt == "two puffins on a beach at sunset"
    assert [note.kind for note in request.notes] == ["wording"]
    again = request_from(request.prompt, settings=settings, graph="pleinair")
    assert (again.prompt, again.notes) == (request.prompt, ())


def test_a_note_says_what_was_left_out_and_read_as_another_word() -> None:
    settings = load("pocket", CATALOGUE)
    request = request_from("a cute hoopo, high quality", settings=settings, graph="pleinair")
    (note,) = request.notes
    assert note.about == "a hoopoe" and "“hoopo” as “hoopoe”" in note.text and "high quality" in note.text


def test_a_line_of_a_chat_stays_as_it_is() -> None:
    settings = load("pocket", CATALOGUE)
    assert request_from("Add a dog!", settings=settings, graph="react").prompt == "Add a dog!"


def test_what_the_world_does_not_have_is_bad_input_with_the_nearest_names() -> None:
    with pytest.raises(BadInput, match=r"'an osprey': I cannot draw an osprey; .* bald eagle"):
        request_from("an osprey", settings=load("pocket", CATALOGUE), graph="pleinair")
