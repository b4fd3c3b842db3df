"""R@K and coverage: known orders, ties, both protocols, and the command on a library."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pleinair.evals.__main__ import main
from pleinair.evals.scores.inputs import Real
from pleinair.evals.scores.recall import coverage, queries_of, ranks
from pleinair.tools.pocket.catalogue.sampling import draw_scene
from pleinair.tools.pocket.catalogue.scenes import render
from pleinair.tools.pocket.catalogue.species import SPECIES
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.tools.types import Vectors

IMAGES = [
    Real(Path("a"), captions=("a finch", "a red finch on a twig")),
    Real(Path("b"), captions=("a coupe in a street",)),
    Real(Path("c"), captions=("a twig", "a finch and a coupe")),
]


def test_every_caption_asks_or_the_longest() -> None:
    assert queries_of(IMAGES, "coco") == [
        ("a finch", 0),
        ("a red finch on a twig", 0),
        ("a coupe in a street", 1),
        ("a twig", 2),
        ("a finch and a coupe", 2),
    ]
    assert queries_of(IMAGES, "longest") == [
        ("a red finch on a twig", 0),
        ("a coupe in a street", 1),
        ("a finch and a coupe", 2),
    ]
    with pytest.raises(BadInput, match="1 of 2 images have no caption, such as d"):
        queries_of([IMAGES[0], Real(Path("d"))], "coco")


def test_ranks_count_the_images_that_are_at_least_as_near() -> None:
    images = np.eye(3, dtype=np.float32)[[0, 1, 1]]  # the last two are equal
    texts = {"first": [1, 0, 0], "second": [0.6, 0.8, 0], "none": [0, 0, 1]}

    def embed(names: Sequence[str]) -> Vectors:
        return np.array([texts[name] for name in names], dtype=np.float32)

    queries = [("first", 0), ("second", 0), ("second", 1), ("none", 2)]
    assert ranks(embed, images, queries).tolist() == [0, 2, 1, 2]


def test_ranks_do_not_depend_on_the_chunks() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(600, 8)).astype(np.float32)
    queries = [(str(number), number) for number in range(600)]
    texts = vectors + rng.normal(scale=2, size=vectors.shape).astype(np.float32)
    cosines = texts @ vectors.T
    expected = [(cosines[n] >= cosines[n, n]).sum() - 1 for n in range(600)]
    assert ranks(lambda names: texts[[int(name) for name in names]], vectors, queries).tolist() == expected


def test_coverage_leaves_the_own_image_out() -> None:
    parts = ["finch", "twig", "coupe", "moon"]
    shares = coverage(IMAGES, parts, own=0, order=[0, 1, 2])
    assert shares == {"coverage@1": 0.25, "coverage@5": 0.75, "coverage@10": 0.75, "coverage, library": 0.75}
    assert coverage(IMAGES, parts, own=1, order=[1, 0, 2])["coverage@1"] == 0.5


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten species, each with two captions."""
    folder = tmp_path_factory.mktemp("library")
    lines = []
    for number, species in enumerate(SPECIES[:10]):
        render(draw_scene(random.Random(number), [species])).save(folder / f"{number}.png")
        texts = [f"a {species.name}", f"a photo of a {species.name}"]
        lines.append(json.dumps({"file_name": f"{number}.png", "text": texts}))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_the_command_measures_a_library(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["recall", str(library), "--encoder", "local-dir:pocket/catalogue/encoder"]
    assert main([*words, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    first, fifth, tenth = figures["figures"]
    assert (first["measure"], first["n"], figures["images"]) == ("R@1", 20, 10)
    assert 0.5 < first["mean"] <= fifth["mean"] <= tenth["mean"] == 1
    assert 0 <= first["interval"][0] <= first["mean"] <= first["interval"][1] <= 1
    file = tmp_path / "parts.jsonl"
    assert main([*words, "--protocol", "longest", "--subqueries", str(file), "--profile", "pocket"]) == 0
    output = capsys.readouterr().out
    assert "10 images, 10 captions, protocol longest" in output
    assert "| coverage, library | 0.0" in output  # each species is in one image's captions only
    written = file.read_text("utf-8").splitlines()
    assert len(written) == 10
    assert main([*words, "--protocol", "longest", "--subqueries", str(file)]) == 0
    assert capsys.readouterr().out == output
    assert file.read_text("utf-8").splitlines() == written


def test_what_is_missing_is_named(library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["recall", str(library), "--encoder", "local-dir:pocket/catalogue/encoder"]
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text("{}", encoding="utf-8")
    cases = (
        (["--profile", "pocket"], "Name it as --subqueries FILE"),
        (["--subqueries", str(tmp_path / "none.jsonl")], "has no sub-queries. Name a profile"),
        (["--subqueries", str(wrong)], "wrong.jsonl, line 1: accepted are lines"),
    )
    for options, message in cases:
        assert main([*words, *options]) == 1
        assert message in capsys.readouterr().err
