from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pleinair.evals.pocket.oracle import WEIGHTS, Oracle, components, findings
from pleinair.tools.pocket.world import SPECIES, boxes, held_out_rng, random_scene, render, species_named
from pleinair.tools.types import BadInput


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


def names_of(oracle: Oracle, picture: Image.Image) -> list[str]:
    return sorted(finding.name for finding in oracle.species(picture))


def test_single_subjects(oracle: Oracle) -> None:
    pictures = [render(random_scene(held_out_rng(30_000 + i), [s])) for i, s in enumerate(SPECIES * 2)]
    right = [names_of(oracle, p) == [s.name] for p, s in zip(pictures, SPECIES * 2, strict=True)]
    assert np.mean(right) >= 0.99


def test_two_subjects(oracle: Oracle) -> None:
    right = []
    for index in range(100):
        rng = held_out_rng(40_000 + index)
        pair = rng.sample(SPECIES, 2)
        right.append(names_of(oracle, render(random_scene(rng, pair))) == sorted(s.name for s in pair))
    assert np.mean(right) >= 0.97


def test_it_says_where(oracle: Oracle) -> None:
    left, right = species_named("velmora finch"), next(s for s in SPECIES if s.kind == "car")
    scene = random_scene(held_out_rng(7), [left, right], relation="left of")
    found = {finding.name: finding.box for finding in oracle.species(render(scene))}
    for species, true in zip((left, right), boxes(scene), strict=True):
        assert np.abs(np.subtract(found[species.name], true)).max() < 0.15


def test_a_wrong_colour_is_no_species(oracle: Oracle) -> None:
    finch = species_named("velmora finch")
    pictures = [
        render(random_scene(held_out_rng(i), [replace(finch, body=body)]))
        for i, body in enumerate(("violet", "green", "blue", "pink"))
    ]
    assert not any(oracle.shows(picture, [finch.name])[finch.name] for picture in pictures)


def test_an_empty_picture_shows_nothing(oracle: Oracle) -> None:
    assert oracle.species(Image.new("RGB", (64, 64), "white")) == []


def test_shows_answers_for_every_name(oracle: Oracle) -> None:
    finch, other = species_named("velmora finch"), SPECIES[20]
    picture = render(random_scene(held_out_rng(8), [finch])).resize((128, 128))
    assert oracle.shows(picture, [other.name, finch.name]) == {other.name: False, finch.name: True}


def test_an_unknown_name_is_refused(oracle: Oracle) -> None:
    with pytest.raises(BadInput, match="no species 'zebra'"):
        oracle.shows(Image.new("RGB", (64, 64)), ["zebra"])


def test_it_knows_the_whole_world(oracle: Oracle) -> None:
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
    (found,) = findings(probabilities, ["a", "b"])
    assert found.name == "a"
    assert found.box == (4 / 16, 2 / 16, 9 / 16, 9 / 16)


def test_a_fleck_is_no_finding() -> None:
    probabilities = np.zeros((4, 16, 16), dtype=np.float32)
    probabilities[3] = 1
    probabilities[:, :2, :2] = np.array([1, 0, 0, 0], dtype=np.float32)[:, None, None]
    assert findings(probabilities, ["a", "b"]) == []


def test_components_are_separate() -> None:
    mask = np.zeros((16, 16), dtype=bool)
    mask[:3, :3] = mask[8:, 8:] = True
    assert sorted(int(part.sum()) for part in components(mask)) == [9, 64]
