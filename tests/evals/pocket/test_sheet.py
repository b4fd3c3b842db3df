"""The sheet of images and the marks of species that came across."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pleinair.evals.cases import make_case
from pleinair.evals.pocket.marks import MarkProbes, twin
from pleinair.evals.pocket.oracle import Oracle
from pleinair.evals.pocket.sheet import Drawn, describe_marks, main, pages, shares_of_marks
from pleinair.tools.pocket.catalogue.library import write_library
from pleinair.tools.pocket.catalogue.scenes import Subject, place_scene, render
from pleinair.tools.pocket.catalogue.species import BY_NAME


def drawn(number: int, draft: dict[str, bool | None], result: dict[str, bool | None]) -> Drawn:
    panels = [Image.new("RGB", (96, 96), colour) for colour in ("red", "green", "blue")]
    return Drawn(make_case("rare", number, 1), panels[0], (panels[1],), panels[2], draft, result)


def test_marks_of_renders() -> None:
    probes, species = MarkProbes(Oracle(), samples=40, held_out=20), BY_NAME["kingfisher"]
    assert set(species.marks) == {"bill", "wings", "face"}
    for number in range(3):
        scene = place_scene(random.Random(number), [Subject(species)])
        assert probes.marks(render(scene), species) == {"bill": True, "wings": True, "face": True}
        look = twin(species, "bill")
        short = replace(scene, figures=tuple(replace(figure, species=look) for figure in scene.figures))
        assert probes.marks(render(short), species)["bill"] is False
        other = render(place_scene(random.Random(number), [Subject(BY_NAME["apple"])]))
        assert not any(probes.marks(other, species).values())


def test_a_mark_that_no_probe_can_tell() -> None:
    probes = MarkProbes(Oracle(), samples=4, held_out=20)  # too few to learn from
    assert None in probes.marks(Image.new("RGB", (96, 96)), BY_NAME["scarlet ibis"]).values()


def test_shares_of_marks() -> None:
    rows = [
        drawn(0, {"crest": False, "bill": True}, {"crest": True, "bill": True}),
        drawn(1, {"wings": False, "tail": None}, {"wings": False, "tail": None}),
    ]
    shares = shares_of_marks(rows)
    assert (shares["draft"]["mean"], shares["draft"]["n"]) == (pytest.approx(1 / 3), 3)
    assert (shares["result"]["mean"], shares["result"]["groups"]) == (pytest.approx(2 / 3), 2)
    assert describe_marks(rows[1].result_marks) == "no wings, tail?"


def test_pages() -> None:
    first, second = pages([drawn(number, {}, {}) for number in range(21)])
    assert (first.size, second.size) == ((1536, 2200), (1536, 220))
    assert [first.getpixel((x, 120)) for x in (90, 290, 480, 680)] == [
        (255, 0, 0),
        (0, 128, 0),
        (255, 255, 255),
        (0, 0, 255),
    ]
    assert second.getpixel((90, 120)) == (255, 0, 0) and second.getpixel((900, 120)) == (255, 255, 255)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_library(tmp_path / "library", size=60, tiers=("rare", "novel"))
    words = ["--cases", "1", "--out", str(tmp_path / "sheet.png")]
    main([*words, "--set", f"library={tmp_path / 'library'}", "--set", "retrieval.method=lexical"])
    page = tmp_path / "sheet-1.png"
    assert capsys.readouterr().out == f"{page}\n"
    with Image.open(page) as image:
        assert image.size == (1536, 220)
