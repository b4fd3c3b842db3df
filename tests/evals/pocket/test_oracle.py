"""The oracle: right species and boxes on held-out scenes, and findings from cell probabilities."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.species import species_named

from pleinair.evals.pocket.oracle import WEIGHTS, Oracle, findings
from pleinair.evals.pocket.train_oracle import train
from pleinair.tools.pocket.invented.world import SPECIES, boxes, random_scene, render
from pleinair.tools.pocket.training.course import Run
from pleinair.tools.pocket.training.streams import held_out_rng
from pleinair.tools.types import BadInput


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


def names_in(oracle: Oracle, image: Image.Image) -> list[str]:
    return sorted(finding.name for finding in oracle.species(image))


def test_single_subjects(oracle: Oracle) -> None:
    images = [render(random_scene(held_out_rng(30_000 + i), [s])) for i, s in enumerate(SPECIES * 2)]
    right = [names_in(oracle, image) == [s.name] for image, s in zip(images, SPECIES * 2, strict=True)]
    assert np.mean(right) >= 0.99


def test_two_subjects(oracle: Oracle) -> None:
    right = []
    for index in range(100):
        rng = held_out_rng(40_000 + index)
        pair = rng.sample(SPECIES, 2)
        right.append(names_in(oracle, render(random_scene(rng, pair))) == sorted(s.name for s in pair))
    assert np.mean(right) >= 0.97


def test_boxes_enclose_the_subjects(oracle: Oracle) -> None:
    finch, car = species_named("velmora finch"), next(s for s in SPECIES if s.kind == "car")
    scene = random_scene(held_out_rng(7), [finch, car], relation="left of")
    actual = {finding.name: finding.box for finding in oracle.species(render(scene))}
    for species, true in zip((finch, car), boxes(scene), strict=True):
        assert np.abs(np.subtract(actual[species.name], true)).max() < 0.15


def test_a_wrong_colour_is_not_the_species(oracle: Oracle) -> None:
    finch = species_named("velmora finch")
    images = [
        render(random_scene(held_out_rng(i), [replace(finch, body=body)]))
        for i, body in enumerate(("violet", "green", "blue", "pink"))
    ]
    assert not any(oracle.shows(image, [finch.name])[finch.name] for image in images)


def test_an_empty_image_shows_nothing(oracle: Oracle) -> None:
    assert oracle.species(Image.new("RGB", (64, 64), "white")) == []


def test_shows_answers_for_every_name(oracle: Oracle) -> None:
    finch, other = species_named("velmora finch"), SPECIES[20]
    image = render(random_scene(held_out_rng(8), [finch])).resize((128, 128))
    assert oracle.shows(image, [other.name, finch.name]) == {other.name: False, finch.name: True}


def test_an_unknown_name_is_refused(oracle: Oracle) -> None:
    with pytest.raises(BadInput, match="no species 'zebra'"):
        oracle.shows(Image.new("RGB", (64, 64)), ["zebra"])


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


def test_trained_weights_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / "oracle.safetensors"
    train(Run(path, tmp_path / "work", minutes=1, resume=False, tiny=True))
    assert Oracle(path).names == [s.name for s in SPECIES]
