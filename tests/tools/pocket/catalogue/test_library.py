"""The catalogue world's library: its lines, its defects, and that it is reproducible."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pleinair.tools.pocket.catalogue.captions import caption, named
from pleinair.tools.pocket.catalogue.library import (
    _PAINTER,
    _named_boxes,
    cached_library,
    shown_species,
    write_library,
    write_novel,
)
from pleinair.tools.pocket.catalogue.scenes import Subject, boxes, place_scene
from pleinair.tools.pocket.catalogue.species import BY_NAME, SPECIES
from pleinair.tools.pocket.library_files import mix
from pleinair.tools.retrieval.caption_index import CaptionIndex

TAUGHT = [species for species in SPECIES if species.tier != "novel"]


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_every_line_has_an_image_and_its_license(tmp_path: Path) -> None:
    write_library(tmp_path / "library", size=60)
    lines = records(tmp_path / "library")
    assert len({record["source"] for record in lines}) == 60
    for record in lines:
        assert set(record) - {"boxes"} == {"file_name", "text", "license", "source", "author"}
        with Image.open(tmp_path / "library" / record["file_name"]) as image:
            assert (image.mode, image.size) == ("RGB", (96, 96))


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_library(tmp_path / name, seed=seed, size=12)
    first, again, other = ((tmp_path / n / "00007.png").read_bytes() for n in "abc")
    assert first == again != other
    assert records(tmp_path / "a") == records(tmp_path / "b")


def test_defects_are_about_as_frequent_as_stated() -> None:
    items = list(mix(random.Random(5), _PAINTER, TAUGHT, 2000))
    texts = [text for _, text in items]
    empty = sum(text.words == "" for text in texts)
    wrong = sum(bool(text.words) and not text.fits(scene) for scene, text in items)
    strangers = sum(not subject.species.name for scene, _ in items for subject in scene.subjects)
    pairs = sum(len(scene.subjects) == 2 for scene, _ in items)
    by_name = sum(any(look.named for look in text.looks) for text in texts)
    assert 30 < empty < 90
    assert 8 < wrong < 40
    assert 110 < strangers < 220
    assert 110 < pairs < 220
    assert 1150 < by_name < 1450


def test_captions_name_every_taught_species_and_no_novel_one() -> None:
    texts = [text.words for _, text in mix(random.Random("library-0"), _PAINTER, TAUGHT, 2000)]
    captions = CaptionIndex.build(texts)

    def is_named(name: str) -> bool:
        best = (-captions.scores(name)).argsort()[:100]
        return any(captions.is_match(texts[row], name) for row in best)

    assert {species.name for species in SPECIES if is_named(species.name)} == {s.name for s in TAUGHT}


def test_every_taught_species_is_shown_several_times_and_no_novel_one() -> None:
    shown = [name for names in shown_species().values() for name in names]
    assert set(shown) == {species.name for species in TAUGHT}
    assert min(shown.count(species.name) for species in TAUGHT) >= 6


def test_boxes_are_of_subjects_that_the_caption_names() -> None:
    scene = place_scene(random.Random(1), [Subject(BY_NAME["apple"], 2), Subject(BY_NAME["taxi"])])
    by_name = caption(random.Random(2), scene, by_name=True)
    assert set(_named_boxes(scene, by_name)) == {"apple", "taxi"}
    first = next(box for figure, box in zip(scene.figures, boxes(scene), strict=True) if not figure.subject)
    assert _named_boxes(scene, by_name)["apple"] == pytest.approx(first, abs=1e-4)
    assert _named_boxes(scene, caption(random.Random(2), scene, by_name=False)) == {}
    assert _named_boxes(scene, named(BY_NAME["green apple"])) == {}


def test_novel_species_are_named_in_every_caption(tmp_path: Path) -> None:
    write_novel(tmp_path / "novel", each=1)
    lines = records(tmp_path / "novel")
    novel = [species.name for species in SPECIES if species.tier == "novel"]
    assert [list(record["boxes"]) for record in lines] == [[name] for name in novel]


def test_a_cached_library_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pleinair.tools.pocket.catalogue.library.write_library", lambda f: write_library(f, size=2)
    )
    folder = cached_library(tmp_path)
    before = (folder / "metadata.jsonl").stat().st_mtime_ns
    assert cached_library(tmp_path) == folder
    assert (folder / "metadata.jsonl").stat().st_mtime_ns == before


def test_unknown_tiers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose from known, rare, novel"):
        write_library(tmp_path / "library", tiers=("extinct",))
