"""Generated images and their real ones from folders: sidecars, libraries, data sets, captions and classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from support.data_set_folders import write_data_set

from pleinair.evals.scores.inputs import Real, class_names, pair, read_generated, read_real
from pleinair.evals.scores.items import Generated
from pleinair.tools.data_sets.library import write_library
from pleinair.tools.data_sets.recognise import recognise
from pleinair.tools.images.reading import read_picture
from pleinair.tools.types import BadInput


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), "red").save(path)
    return path


def library(folder: Path, *texts: str) -> Path:
    lines = []
    for number, text in enumerate(texts):
        image(folder / f"{number}.png")
        captions = text.split("\n") if "\n" in text else text
        lines.append(json.dumps({"file_name": f"{number}.png", "text": captions}) if text else "")
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def sidecar(path: Path, prompt: str, *, encoder: str = "", retrieved: bool = True) -> None:
    content = {
        "format": 1,
        "order": {"prompt": prompt},
        "outcome": {"ending": "accepted"},
        "retrievals": [{"query": prompt}] if retrieved else [],
        "models": {"generator": "g", "encoder": encoder},
    }
    path.write_text(json.dumps(content), encoding="utf-8")


# generated


def test_runs_have_their_prompts_and_the_encoders_that_retrieved(tmp_path: Path) -> None:
    for number, (encoder, retrieved) in enumerate((("a", True), ("b", True), ("c", False), ("a", True))):
        sidecar(
            image(tmp_path / f"{number}.png").with_suffix(".json"),
            f"bird {number}",
            encoder=encoder,
            retrieved=retrieved,
        )
    sidecar(tmp_path / "failed.json", "bird")
    (tmp_path / "notes.json").write_text("[1]", encoding="utf-8")
    generated = read_generated(tmp_path)
    assert [(item.image.name, item.prompt) for item in generated.items] == [
        (f"{number}.png", f"bird {number}") for number in range(4)
    ]
    assert (generated.retrievers, generated.skipped) == (("a", "b"), 1)


def test_a_librarys_captions_are_prompts(tmp_path: Path) -> None:
    generated = read_generated(library(tmp_path, "a bird", "a cat\na dog"))
    assert [item.prompt for item in generated.items] == ["a bird", "a cat"]
    assert generated.retrievers == ()


def test_images_without_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a folder"):
        read_generated(tmp_path / "none")
    with pytest.raises(BadInput, match=r"1 of 2 images in .* have no prompt, such as 1\.png"):
        read_generated(library(tmp_path / "some", "a bird", ""))
    (tmp_path / "failed").mkdir()
    sidecar(tmp_path / "failed" / "0.json", "a bird")
    with pytest.raises(BadInput, match="None of 1 runs"):
        read_generated(tmp_path / "failed")


# real


def test_a_library_of_a_data_set_is_a_library(tmp_path: Path) -> None:
    write_data_set("dogs", tmp_path / "dogs")
    data_set = recognise(tmp_path / "dogs")
    library = write_library(data_set, data_set.split("test"), tmp_path / "library")
    real = read_real(library, "", tmp_path / "cache")
    assert {image.captions for image in real} == {(name,) for name in data_set.class_names}


def test_a_data_set_has_class_names_and_splits(tmp_path: Path) -> None:
    examples = write_data_set("cub", tmp_path / "cub")
    test = read_real(tmp_path / "cub", "test", tmp_path / "cache")
    everything = read_real(tmp_path / "cub", "", tmp_path / "cache")
    assert len(everything) == len(examples) > len(test) == 3
    assert {real.class_name.casefold() for real in test} == {
        "black footed albatross",
        "mandarin duck",
        "common tern",
    }
    assert all(len(real.captions) == 10 and real.image.is_file() for real in test)
    with pytest.raises(BadInput, match="--split val: .* has train, test"):
        read_real(tmp_path / "cub", "val", tmp_path / "cache")


def test_a_banner_is_no_part_of_a_real_image(tmp_path: Path) -> None:
    write_data_set("aircraft", tmp_path / "aircraft")
    real = read_real(tmp_path / "aircraft", "test", tmp_path / "cache")[0]
    original = next((tmp_path / "aircraft").rglob(real.image.name))
    assert read_picture(real.image).height == read_picture(original).height - 20


def test_a_library_has_captions_and_no_splits(tmp_path: Path) -> None:
    real = read_real(library(tmp_path / "library", "a bird\na wren"), "", tmp_path)
    assert [entry.captions for entry in real] == [("a bird", "a wren")]
    with pytest.raises(BadInput, match="is a library, which has no splits"):
        read_real(tmp_path / "library", "test", tmp_path)


# pairs


def drawn(*prompts: str) -> list[Generated]:
    return [Generated(Path(f"{number}.png"), prompt) for number, prompt in enumerate(prompts)]


BIRDS = [
    Real(Path("a"), "Tern", ("a white bird", "a tern")),
    Real(Path("b"), "Elegant Tern", ("a bird with a crest",)),
    Real(Path("c"), "Black footed Albatross", ("a white bird",)),
    Real(Path("d"), "Tern", ("a tern on a rock",)),
]


def test_a_prompt_that_is_a_caption_has_the_images_of_that_caption() -> None:
    first, second = pair(drawn("A white bird.", "a tern"), BIRDS)
    assert (first.truth, second.truth) == ((Path("a"), Path("c")), (Path("a"),))
    assert first.group == second.group == ""
    again = pair(drawn("a tern", "a tern", "a white bird"), BIRDS)
    assert [item.group for item in again] == ["a tern", "a tern", "a white bird"]


def test_a_prompt_that_names_a_class_has_the_images_of_that_class() -> None:
    items = pair(drawn("A photo of a Black-footed Albatross", "a tern", "an elegant tern at sea"), BIRDS)
    assert [item.truth for item in items] == [(Path("c"),), (Path("a"), Path("d")), (Path("b"),)]
    assert [item.group for item in items] == ["Black footed Albatross", "Tern", "Elegant Tern"]
    assert pair(drawn("a tern"), BIRDS, "class")[0].truth == (Path("a"), Path("d"))


def test_captions_stand_for_classes_where_there_are_none() -> None:
    assert class_names(BIRDS) == ("Tern", "Elegant Tern", "Black footed Albatross")
    plain = [Real(Path("a"), captions=("Tern",)), Real(Path("b"), captions=("tern", "auk"))]
    assert class_names(plain) == ("Tern", "auk")


def test_folders_of_a_library_are_classes(tmp_path: Path) -> None:
    for name in ("mandarin duck", "common tern"):
        image(tmp_path / name / "001.png")
    items = pair(drawn("a photo of a mandarin duck"), read_real(tmp_path, "", tmp_path))
    assert [path.parent.name for path in items[0].truth] == ["mandarin duck"]
    assert items[0].group == "mandarin duck"


def test_a_prompt_without_real_images_is_refused() -> None:
    with pytest.raises(
        BadInput, match=r"1 of 2 prompts have no real image by caption or class, such as 'a cat' \(1.png\)"
    ):
        pair(drawn("a tern", "a cat"), BIRDS)
    with pytest.raises(BadInput, match="1 of 1 prompts have no real image by caption,"):
        pair(drawn("a photo of a tern"), BIRDS, "caption")
    with pytest.raises(BadInput, match="names several classes: 'black footed albatross', 'tern'"):
        pair(drawn("a tern and a black footed albatross"), BIRDS)
