"""The image library: its lines, its defects, and that it is reproducible and written atomically."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pleinair.tools.pocket.invented import library
from pleinair.tools.pocket.invented.library import write_library, write_novel
from pleinair.tools.pocket.invented.world import SPECIES, Scene, boxes, random_scene, render
from pleinair.tools.types import Box


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def boxes_of(scene: Scene, name: str) -> list[Box]:
    return [box for s, box in zip(scene.subjects, boxes(scene), strict=True) if s.species.name == name]


def test_every_line_has_an_image_and_its_license(tmp_path: Path) -> None:
    write_library(tmp_path / "library", size=130)
    lines = records(tmp_path / "library")
    assert len(lines) == 130
    for record in lines:
        assert set(record) - {"boxes"} == {"file_name", "text", "license", "source", "author"}
        with Image.open(tmp_path / "library" / record["file_name"]) as image:
            assert (image.mode, image.size) == ("RGB", (64, 64))
    assert len({record["source"] for record in lines}) == 130


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_library(tmp_path / name, seed=seed, size=12)
    first, again, other = ((tmp_path / n / "00007.png").read_bytes() for n in "abc")
    assert first == again != other
    assert records(tmp_path / "a") == records(tmp_path / "b")


def test_the_library_of_stored_runs_is_unchanged(tmp_path: Path) -> None:
    write_library(tmp_path / "library", size=120)
    digest = hashlib.sha256((tmp_path / "library" / "metadata.jsonl").read_bytes())
    for path in sorted((tmp_path / "library").glob("*.png")):
        with Image.open(path) as image:
            digest.update(image.tobytes())
    assert digest.hexdigest()[:16] == "19022096a6665e0f"


def test_captions_are_names_descriptions_or_empty(tmp_path: Path) -> None:
    write_library(tmp_path / "library", size=400)
    texts = [record["text"] for record in records(tmp_path / "library")]
    names = [species.name for species in SPECIES if species.tier != "novel"]
    count = sum(any(name in text for name in names) for text in texts)
    assert 220 < count < 340
    assert 2 < texts.count("") < 40
    assert not any(s.name in text for s in SPECIES if s.tier == "novel" for text in texts)


def test_boxes_are_of_subjects_that_the_caption_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes: list[Scene] = []

    def recording_render(scene: Scene) -> Image.Image:
        scenes.append(scene)
        return render(scene)

    monkeypatch.setattr(library, "render", recording_render)
    write_library(tmp_path / "library", size=600)
    wrong = pairs = 0
    for scene, record in zip(scenes, records(tmp_path / "library"), strict=True):
        true = {s.species.name: box for s, box in zip(scene.subjects, boxes(scene), strict=True)}
        names = [species.name for species in SPECIES if species.name in record["text"]]
        assert set(record.get("boxes", {})) == set(names) & set(true)
        wrong += bool(set(names) - set(true))
        pairs += len(record.get("boxes", {})) == 2
        for name, box in record.get("boxes", {}).items():
            assert any(box == pytest.approx(actual, abs=1e-4) for actual in boxes_of(scene, name))
    assert wrong and pairs


def test_of_two_of_one_species_the_first_has_the_box() -> None:
    scene = random_scene(random.Random(1), [SPECIES[0]] * 2, relation="left of")
    named_boxes = library._named_boxes(scene, f"two of the {SPECIES[0].name}")
    assert named_boxes == {SPECIES[0].name: pytest.approx(boxes(scene)[0], abs=1e-4)}


def test_novel_species_are_named_in_every_caption(tmp_path: Path) -> None:
    write_novel(tmp_path / "novel", each=2)
    texts = [record["text"] for record in records(tmp_path / "novel")]
    novel = [species.name for species in SPECIES if species.tier == "novel"]
    assert [sum(name in text for text in texts) for name in novel] == [2] * len(novel)


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="not empty"):
        write_library(tmp_path, size=1)


def test_unknown_tiers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose from known, rare, novel"):
        write_library(tmp_path / "library", tiers=("extinct",))


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(library, "_record", fail)
    with pytest.raises(OSError, match="disk full"):
        write_library(tmp_path / "library", size=3)
    assert list(tmp_path.iterdir()) == []
