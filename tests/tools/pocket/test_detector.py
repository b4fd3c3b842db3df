"""The concept detector: precision and recall on held-out scenes, boxes, unknown words, refusals."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pleinair.tools.model_files.folders import SHIPPED, locate
from pleinair.tools.pocket.catalogue.captions import describe
from pleinair.tools.pocket.catalogue.scenes import Subject, boxes, place_scene, render
from pleinair.tools.pocket.catalogue.species import BY_NAME, SPECIES, Species
from pleinair.tools.pocket.detector import ConceptDetector
from pleinair.tools.pocket.training.cases import held_out_rng
from pleinair.tools.types import BadInput

TAUGHT = [s for s in SPECIES if s.tier != "novel"]


@pytest.fixture(scope="module")
def detector() -> ConceptDetector:
    return ConceptDetector()


def scene_of(index: int, *species: Species) -> Image.Image:
    return render(place_scene(held_out_rng(index), [Subject(each) for each in species]))


def test_precision_and_recall_on_held_out_scenes(detector: ConceptDetector) -> None:
    predicted, truth = [], []
    for index in range(80):
        rng = held_out_rng(60_000 + index)
        present = rng.sample(TAUGHT, 1 + index % 2)
        rival = rng.choice([s for s in TAUGHT if s.kind == present[0].kind and s not in present])
        queried = [*present, rival, rng.choice([s for s in TAUGHT if s not in present])]
        detections = detector.detect(scene_of(60_000 + index, *present), [s.name for s in queried])
        predicted += [detection.probability >= 0.5 for detection in detections]
        truth += [s in present for s in queried]
    hits = np.array(predicted) & np.array(truth)
    assert hits.sum() / sum(predicted) >= 0.95
    assert hits.sum() / sum(truth) >= 0.95


def test_detections_are_in_the_order_of_the_phrases(detector: ConceptDetector) -> None:
    jay, car = BY_NAME["blue jay"], next(s for s in TAUGHT if s.kind == "car")
    image = scene_of(1, jay)
    present, absent = detector.detect(image, [jay.name, car.name])
    assert present.probability > 0.7
    assert absent.probability < 0.3
    assert [hit.probability for hit in detector.detect(image, [car.name, jay.name])] == pytest.approx(
        [absent.probability, present.probability], abs=1e-4
    )


@pytest.mark.usefixtures("hasty")
def test_threads_share_a_detector() -> None:
    detector = ConceptDetector()  # not the fixture: its first calls run at once too
    image, phrases = scene_of(1, BY_NAME["blue jay"]), [species.name for species in TAUGHT[:8]]
    with ThreadPoolExecutor(8) as pool:
        detections = list(pool.map(lambda phrase: detector.detect(image, [phrase]), phrases * 2))
    assert detections == [detector.detect(image, [phrase]) for phrase in phrases * 2]


def test_the_box_encloses_the_subject(detector: ConceptDetector) -> None:
    jay, car = BY_NAME["blue jay"], next(s for s in TAUGHT if s.kind == "car")
    scene = place_scene(held_out_rng(2), [Subject(jay), Subject(car)], ["left of"])
    for detection, true in zip(
        detector.detect(render(scene), [jay.name, car.name]), boxes(scene), strict=True
    ):
        assert detection.box is not None
        assert np.abs(np.subtract(detection.box, true)).max() < 0.15


def test_an_absent_concept_has_no_box(detector: ConceptDetector) -> None:
    (detection,) = detector.detect(scene_of(3, BY_NAME["blue jay"]), ["a blue car"])
    assert detection.box is None


def test_a_wrong_colour_is_absent(detector: ConceptDetector) -> None:
    jay = BY_NAME["blue jay"]
    painted = replace(jay, looks={**jay.looks, **dict.fromkeys(("body", "head", "wing"), "red")})
    (detection,) = detector.detect(scene_of(4, painted), [jay.name])
    assert detection.probability < 0.5


def test_novel_species_are_detected_by_description(detector: ConceptDetector) -> None:
    novel = [s for s in SPECIES if s.tier == "novel"]
    texts = [describe(held_out_rng(0), species).words for species in novel]
    images = [scene_of(70_000 + i, species) for i, species in enumerate(novel)]
    right = [detector.detect(image, [text])[0] for image, text in zip(images, texts, strict=True)]
    wrong = [detector.detect(images[i - 1], [text])[0] for i, text in enumerate(texts)]
    assert np.mean([hit.probability for hit in right]) > np.mean([hit.probability for hit in wrong]) + 0.4


def test_an_unknown_name_is_never_present(detector: ConceptDetector) -> None:
    novel = next(s for s in SPECIES if s.tier == "novel" and s.kind == "bird")
    (shown,) = detector.detect(scene_of(5, novel), [novel.name])
    (absent,) = detector.detect(scene_of(6, next(s for s in TAUGHT if s.kind == "car")), [novel.name])
    assert shown.unknown == absent.unknown == novel.name
    assert max(shown.probability, absent.probability) <= 0.5


def test_no_phrases_return_no_detections(detector: ConceptDetector) -> None:
    assert detector.detect(Image.new("RGB", (64, 64)), []) == []


def test_any_size_and_mode_is_accepted(detector: ConceptDetector) -> None:
    jay = BY_NAME["blue jay"]
    large = scene_of(1, jay).resize((256, 256)).convert("RGBA")
    assert detector.detect(large, [jay.name])[0].probability > 0.5


def test_a_detector_of_another_encoder_is_refused(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "catalogue" / "detector", tmp_path / "detector")
    path = tmp_path / "detector" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"encoder": "0" * 12}
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BadInput, match="was trained on encoder 000000000000"):
        ConceptDetector(tmp_path / "detector")


def test_the_earlier_name_of_the_folder_is_accepted_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="pocket/eyes is now called pocket/detector"):
        assert locate("pocket/eyes") == SHIPPED / "detector"
