"""Plug-ins are real distributions here: folders on `sys.path` with metadata, as an installer leaves them."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import get_args

import pytest

from pleinair.tools import registry
from pleinair.tools.registry import BrokenPlugin, Kind, names, resolve
from pleinair.tools.types import BadInput


class Install:
    """Install distributions into a folder that the interpreter sees for one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, distribution: str, group: str, line: str, source: str = "") -> None:
        about = self.folder / f"{distribution}-1.2.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n", encoding="utf-8"
        )
        (about / "entry_points.txt").write_text(f"[{group}]\n{line}\n", encoding="utf-8")
        (self.folder / f"{distribution}.py").write_text(source, encoding="utf-8")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    monkeypatch.syspath_prepend(tmp_path)
    return Install(tmp_path)


def test_a_third_party_backend_is_resolved_by_name(install: Install) -> None:
    install("crayon", "pleinair.generator", "crayon = crayon:Crayon", "class Crayon:\n    slots = 3\n")
    assert "crayon" in names("generator")
    assert resolve("generator", "crayon").slots == 3


def test_listing_names_imports_nothing(install: Install) -> None:
    install("lead", "pleinair.mllm", "lead = lead:Lead", "raise RuntimeError('imported')")
    assert "lead" in names("mllm")
    assert "lead" not in sys.modules


def test_an_unknown_name_lists_the_choices_and_the_nearest(install: Install) -> None:
    install("gouache", "pleinair.encoder", "gouache = gouache:Gouache")
    with pytest.raises(BadInput, match="Did you mean `gouache`") as caught:
        resolve("encoder", "guache")
    for name in names("encoder"):
        assert name in str(caught.value)


def test_no_choice_is_suggested_for_a_name_like_none() -> None:
    with pytest.raises(BadInput) as caught:
        resolve("graph", "zzzzzz")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("distribution", "source"),
    [
        ("noattribute", ""),
        ("noimport", "import a_library_nobody_has\n"),
        ("badsyntax", "def (:\n"),
        ("raises", "raise RuntimeError('no licence key')\n"),
        ("divides", "{}['key']\n"),
    ],
)
def test_a_plug_in_that_cannot_be_loaded_is_reported_with_its_distribution(
    install: Install, distribution: str, source: str
) -> None:
    install(distribution, "pleinair.generator", f"{distribution} = {distribution}:Engine", source)
    with pytest.raises(BrokenPlugin, match=f"{distribution} 1.2") as caught:
        resolve("generator", distribution)
    assert caught.value.__cause__ is not None


def test_a_name_claimed_twice_is_refused(install: Install) -> None:
    for distribution in ("one", "two"):
        install(distribution, "pleinair.generator", f"brush = {distribution}:Brush", "Brush = 1\n")
    with pytest.raises(BrokenPlugin, match="`one 1.2` and `two 1.2`"):
        resolve("generator", "brush")


def test_a_kind_without_backends_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_declared", lambda _: ())
    with pytest.raises(BadInput, match="none installed"):
        resolve("mllm", "pocket")


@pytest.mark.parametrize("kind", get_args(Kind))
def test_built_in_backends_are_registered_like_plug_ins(kind: Kind) -> None:
    points = entry_points(group=f"pleinair.{kind}")
    built_in = {point.name for point in points if point.dist and point.dist.name == "pleinair"}
    assert built_in and built_in <= set(names(kind))
