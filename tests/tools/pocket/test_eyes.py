import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pleinair.tools.model_files.folders import SHIPPED
from pleinair.tools.pocket.eyes import ConceptDetector
from pleinair.tools.pocket.prompts import describe
from pleinair.tools.pocket.world import (
    SPECIES,
    Species,
    boxes,
    held_out_rng,
    random_scene,
    render,
    species_named,
)
from pleinair.tools.types import BadInput

TAUGHT = [s for s in SPECIES if s.tier != "novel"]


@pytest.fixture(scope="module")
def eyes() -> ConceptDetector:
    return ConceptDetector()


def scene_of(index: int, *species: Species) -> Image.Image:
    return render(random_scene(held_out_rng(index), species))


def test_precision_and_recall_on_held_out_scenes(eyes: ConceptDetector) -> None:
    seen, truth = [], []
    for index in range(80):
        rng = held_out_rng(60_000 + index)
        shown = rng.sample(TAUGHT, 1 + index % 2)
        rival = rng.choice([s for s in TAUGHT if s.kind == shown[0].kind and s not in shown])
        asked = [*shown, rival, rng.choice([s for s in TAUGHT if s not in shown])]
        sights = eyes.look(scene_of(60_000 + index, *shown), [s.name for s in asked])
        seen += [sight.probability >= 0.5 for sight in sights]
        truth += [s in shown for s in asked]
    hits = np.array(seen) & np.array(truth)
    assert hits.sum() / sum(seen) >= 0.95
    assert hits.sum() / sum(truth) >= 0.95


def test_sights_come_in_the_order_of_the_phrases(eyes: ConceptDetector) -> None:
    finch, coupe = species_named("velmora finch"), next(s for s in TAUGHT if s.kind == "car")
    picture = scene_of(1, finch)
    one, two = eyes.look(picture, [finch.name, coupe.name])
    assert one.probability > 0.7
    assert two.probability < 0.3
    assert [s.probability for s in eyes.look(picture, [coupe.name, finch.name])] == pytest.approx(
        [two.probability, one.probability], abs=1e-4
    )


@pytest.mark.usefixtures("hasty")
def test_threads_look_through_the_same_eyes() -> None:
    finch, eyes = (
        species_named("velmora finch"),
        ConceptDetector(),
    )  # new ones: the first looks come at once too
    picture, phrases = scene_of(1, finch), [species.name for species in TAUGHT[:8]]
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda phrase: eyes.look(picture, [phrase]), phrases * 2))
    assert seen == [eyes.look(picture, [phrase]) for phrase in phrases * 2]


def test_the_box_says_where(eyes: ConceptDetector) -> None:
    left, right = species_named("velmora finch"), next(s for s in TAUGHT if s.kind == "car")
    scene = random_scene(held_out_rng(2), [left, right], relation="left of")
    for sight, true in zip(eyes.look(render(scene), [left.name, right.name]), boxes(scene), strict=True):
        assert sight.box is not None
        assert np.abs(np.subtract(sight.box, true)).max() < 0.15


def test_an_absent_thing_has_no_box(eyes: ConceptDetector) -> None:
    (sight,) = eyes.look(scene_of(3, species_named("velmora finch")), ["a blue car"])
    assert sight.box is None


def test_a_wrong_colour_is_absent(eyes: ConceptDetector) -> None:
    from dataclasses import replace

    finch = species_named("velmora finch")
    painted = replace(finch, body="violet")
    (sight,) = eyes.look(scene_of(4, painted), [finch.name])
    assert sight.probability < 0.5


def test_novel_species_are_seen_by_description(eyes: ConceptDetector) -> None:
    novel = [s for s in SPECIES if s.tier == "novel"]
    right = [eyes.look(scene_of(70_000 + i, s), [describe(s)])[0].probability for i, s in enumerate(novel)]
    wrong = [
        eyes.look(scene_of(70_100 + i, s), [describe(novel[i - 1])])[0].probability
        for i, s in enumerate(novel)
    ]
    assert np.mean(right) > np.mean(wrong) + 0.4


def test_an_unknown_name_is_never_said_to_be_present(eyes: ConceptDetector) -> None:
    novel = next(s for s in SPECIES if s.tier == "novel" and s.kind == "bird")
    (there,) = eyes.look(scene_of(5, novel), [novel.name])
    (gone,) = eyes.look(scene_of(6, next(s for s in TAUGHT if s.kind == "car")), [novel.name])
    assert there.unknown == gone.unknown == novel.name.split()[0]
    assert max(there.probability, gone.probability) <= 0.5


def test_no_phrases_give_no_sights(eyes: ConceptDetector) -> None:
    assert eyes.look(Image.new("RGB", (64, 64)), []) == []


def test_any_size_and_mode_is_looked_at(eyes: ConceptDetector) -> None:
    finch = species_named("velmora finch")
    large = scene_of(1, finch).resize((256, 256)).convert("RGBA")
    assert eyes.look(large, [finch.name])[0].probability > 0.5


def test_eyes_of_another_encoder_are_refused(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "eyes", tmp_path / "eyes")
    path = tmp_path / "eyes" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"encoder": "0" * 12}
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BadInput, match="were trained on encoder 000000000000"):
        ConceptDetector(tmp_path / "eyes")
