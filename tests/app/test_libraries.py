"""The library of the settings: one folder or several, by one name, and never another world's by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pleinair.app.api import estimate, submit
from pleinair.app.cli.main import app
from pleinair.app.libraries import index_folder
from pleinair.app.paths import places
from pleinair.app.settings import load
from pleinair.tools.types import BadInput


@pytest.mark.parametrize(
    ("overrides", "folder"),
    [
        ({"library": "a"}, "a"),
        ({"library": ["a", "b"]}, ("a", "b")),
        ({"library.folder": ["a"]}, "a"),
        ({"library.folder": ["a", "b"]}, ("a", "b")),
        ({"library.folder": "pocket"}, "pocket"),
        ({}, None),
    ],
)
def test_a_library_is_one_folder_or_several(overrides: dict[str, Any], folder: object) -> None:
    assert load("klein", overrides).library.folder == folder


@pytest.mark.parametrize("value", [[], [1], ["a", ""], {"a": 1}])
def test_a_library_of_anything_else_is_refused(value: object) -> None:
    with pytest.raises(BadInput, match=r"library\.folder.* = "):
        load(overrides={"library.folder": value})


def test_a_library_has_one_index_by_whatever_path(place: Path) -> None:
    (place / "link").symlink_to(place / "library")
    (place / "more").mkdir()

    def index(*folders: object) -> Path:
        overrides = {"library.folder": [str(folder) for folder in folders]}
        return index_folder(load(overrides=overrides), places(str(place / "home")))

    library = place / "library"
    assert (
        len({index(path) for path in (library, place / "link", f"{library}/", "library", "more/../link")})
        == 1
    )
    assert index(library, place / "more") == index(place / "more", place / "link") != index(library)


@pytest.mark.usefixtures("place")
def test_a_profile_without_a_library_is_refused_unless_its_graph_needs_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PLEINAIR_LIBRARY__FOLDER")
    for function in (submit, estimate):
        with pytest.raises(BadInput, match=r"library\.folder: not set; .*'klein'"):
            function("a wren", profile="klein")
    assert load("pocket").library.folder == "pocket"
    assert estimate("a wren", profile="klein", graph="direct").lines()
    for command in (["index", "--profile", "klein"], ["draw", "a wren", "--profile", "klein"]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2 and "library.folder: not set" in result.output


def test_several_folders_are_indexed_and_told_apart(place: Path) -> None:
    more = place / "more" / "hoopoe"
    more.mkdir(parents=True)
    (place / "library" / "0.png").rename(more / "1.png")
    result = CliRunner().invoke(app, ["index", "library", "more", "more/hoopoe"])
    assert result.exit_code == 0, result.output
    assert f"of {place / 'library'} and {place / 'more'} are indexed" in result.stdout
    assert "class_folders: 1 caption" in result.stdout
    drawn = CliRunner().invoke(app, ["draw", "two things", "--library", "library", "--library", "more"])
    assert drawn.exit_code == 0, drawn.output
    refused = CliRunner().invoke(app, ["draw", "two things", "--library", "library", "--library", "absent"])
    assert refused.exit_code == 2 and "library.folder = 'absent': no such folder" in refused.output
