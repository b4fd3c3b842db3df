"""The oracle: species and boxes on held-out scenes, and findings from cell probabilities."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pleinair.evals.pocket.oracle import WEIGHTS, Oracle, findings
from pleinair.tools.pocket.catalogue.backgrounds import BACKGROUNDS, paint_background
from pleinair.tools.pocket.catalogue.sampling import impostor
from pleinair.tools.pocket.catalogue.scenes import Subject, boxes, place_scene, render
from pleinair.tools.pocket.catalogue.species import BY_NAME, SPECIES, Species
from pleinair.tools.pocket.training.cases import held_out_rng
from pleinair.tools.types import BadInput


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


def draw(index: int, *species: Species, relation: str = "beside") -> Image.Image:
    return render(
        place_scene(held_out_rng(index), [Subject(s) for s in species], [relation][: len(species) - 1])
    )


def names_in(oracle: Oracle, image: Image.Image) -> list[str]:
    return sorted(finding.name for finding in oracle.species(image))


def test_single_subjects(oracle: Oracle) -> None:
    right = [names_in(oracle, draw(40_000 + i, s)) == [s.name] for i, s in enumerate(SPECIES)]
    assert np.mean(right) >= 0.9


def test_two_subjects(oracle: Oracle) -> None:
    pairs = [held_out_rng(index).sample(SPECIES, 2) for index in range(60)]
    right = [names_in(oracle, draw(i, *pair)) == sorted(s.name for s in pair) for i, pair in enumerate(pairs)]
    assert np.mean(right) >= 0.8


def test_boxes_enclose_the_subjects(oracle: Oracle) -> None:
    pair = [BY_NAME["hoopoe"], BY_NAME["taxi"]]
    scene = place_scene(held_out_rng(7), [Subject(species) for species in pair], ["left of"])
    actual = {finding.name: finding.box for finding in oracle.species(render(scene))}
    for figure, true in zip(scene.figures, boxes(scene), strict=True):
        assert np.abs(np.subtract(actual[figure.species.name], true)).max() < 0.15


def test_a_look_alike_is_less_often_the_species(oracle: Oracle) -> None:
    hoopoe = BY_NAME["hoopoe"]
    alike = [draw(index, impostor(held_out_rng(index), hoopoe)) for index in range(20)]
    right = [draw(index, hoopoe) for index in range(20)]
    share, expected = (
        np.mean([oracle.shows(image, [hoopoe.name])[hoopoe.name] for image in images])
        for images in (alike, right)
    )
    assert share < expected


def test_a_background_shows_nothing(oracle: Oracle) -> None:
    images = [paint_background(name, "day", "clear", 0, 96) for name in BACKGROUNDS]
    assert np.mean([oracle.species(image) == [] for image in images]) > 0.8


def test_shows_answers_for_every_name(oracle: Oracle) -> None:
    image = draw(8, BY_NAME["hoopoe"]).resize((192, 192))
    assert oracle.shows(image, ["taxi", "hoopoe"]) == {"taxi": False, "hoopoe": True}


def test_an_unknown_name_is_refused(oracle: Oracle) -> None:
    with pytest.raises(BadInput, match="no species 'zebra'"):
        oracle.shows(Image.new("RGB", (96, 96)), ["zebra"])


def test_its_classes_are_all_species(oracle: Oracle) -> None:
    assert oracle.names == [s.name for s in SPECIES]


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="train_oracle"):
        Oracle(tmp_path / "none.safetensors")


def test_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 4_000_000


def test_two_parts_with_a_gap_of_one_cell_are_one_finding() -> None:
    probabilities = np.zeros((4, 16, 16), dtype=np.float32)
    probabilities[3] = 1
    for rows in (slice(2, 6), slice(7, 9)):
        probabilities[:, rows, 4:9] = np.array([1, 0, 0, 0], dtype=np.float32)[:, None, None]
    (finding,) = findings(probabilities, ["a", "b"])
    assert finding.name == "a"
    assert finding.box == (4 / 16, 2 / 16, 9 / 16, 9 / 16)


def test_a_small_part_is_not_a_finding() -> None:
    probabilities = np.zeros((4, 16, 16), dtype=np.float32)
    probabilities[3] = 1
    probabilities[:, :2, :2] = np.array([1, 0, 0, 0], dtype=np.float32)[:, None, None]
    assert findings(probabilities, ["a", "b"]) == []
