"""Pairs of images and prompts: captions, folders, names, and the classes of published data sets."""

import json
from pathlib import Path

import pytest
from support.data_set_folders import write_data_set

from pleinair.app.trainings.retriever import find_pairs
from pleinair.tools.data_sets.library import write_library
from pleinair.tools.data_sets.recognise import recognise
from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.realrag.pairs import (
    Pair,
    pairs_by_caption,
    pairs_by_folder,
    pairs_by_name,
)
from pleinair.tools.types import BadInput

CODES = ("n01440764", "17", "00017")


def item(id: str, caption: str = "") -> Item:
    return Item(id=id, size=1, mtime_ns=1, caption=caption)


def test_a_caption_is_a_prompt_and_a_class() -> None:
    assert pairs_by_caption([item("1", "A red car"), item("2"), item("3", "a red car")]) == [
        Pair("1", "A red car", "a red car"),
        Pair("3", "a red car", "a red car"),
    ]


def test_each_of_several_captions_is_a_prompt_of_the_same_class() -> None:
    first, second = pairs_by_caption([item("1", "A red car\na car by night\n")])
    assert (first.prompt, second.prompt) == ("A red car", "a car by night")
    assert first.label == second.label


def test_a_folder_is_a_class() -> None:
    pairs = pairs_by_folder([item("cars/audi_a4/1.png"), item("loose.png")])
    assert pairs == [Pair("cars/audi_a4/1.png", "A photo of a audi a4", "audi a4")]


def test_one_name_in_a_caption_is_a_class() -> None:
    items = [item("1", "the Wren."), item("2", "a wrench"), item("3", "a wren, a cod"), item("4")]
    assert pairs_by_name(items, ["wren", "cod"]) == [Pair("1", "A photo of a wren", "wren")]
    assert pairs_by_name(items, []) == []


def test_a_name_within_a_longer_one_does_not_count() -> None:
    items = [item("1", "a Blood Orange"), item("2", "an orange"), item("3", "a blood orange by an orange")]
    names = ["orange", "blood orange"]
    assert [(pair.id, pair.label) for pair in pairs_by_name(items, names)] == [
        ("1", "blood orange"),
        ("2", "orange"),
    ]


@pytest.mark.parametrize("folder", CODES)
def test_folders_that_are_named_by_codes_are_refused_with_the_remedy(folder: str) -> None:
    with pytest.raises(BadInput, match=r"named by a code.*--classes FILE") as caught:
        pairs_by_folder([item("wren/0.png"), item(f"{folder}/1.png")])
    assert repr(folder) in str(caught.value)


@pytest.mark.parametrize(
    "folder",
    ["2012 Tesla Model S", "boeing 747", "3d printer", "n02085620-Chihuahua", "001.Black_footed_Albatross"],
)
def test_other_folders_are_names(folder: str) -> None:
    (pair,) = pairs_by_folder([item(f"{folder}/1.png")])
    assert not pair.label.startswith(("n0", "001."))


def test_a_file_names_the_folders() -> None:
    (pair,) = pairs_by_folder([item("n01440764/1.png")], {"n01440764": "tench"})
    assert pair == Pair("n01440764/1.png", "A photo of a tench", "tench")
    with pytest.raises(BadInput, match="no line for the folder 'n1'"):
        pairs_by_folder([item("n1/1.png")], {"n01440764": "tench"})


@pytest.mark.parametrize("classes", ["", "folders"])
@pytest.mark.parametrize("layout", ["dogs", "cub", "imagenet", "inaturalist", "aircraft", "cars", "flowers"])
def test_a_data_set_has_its_own_names_and_its_images_to_train_on(
    layout: str, classes: str, tmp_path: Path
) -> None:
    examples = write_data_set(layout, tmp_path / "set")
    library = Library.open(tmp_path / "set")
    part, pairs = find_pairs(library, classes)
    trained = {example.path: example.class_name for example in examples if example.split == "train"}
    assert {pair.id: pair.label for pair in pairs} == trained
    assert part.items.keys() == trained.keys() < library.items.keys()
    assert all(pair.prompt == f"A photo of a {pair.label}" for pair in pairs)
    assert not any(code in pair.prompt for pair in pairs for code in "0123456789_")


def test_a_data_sets_captions_are_prompts(tmp_path: Path) -> None:
    examples = write_data_set("coco", tmp_path / "set")
    part, pairs = find_pairs(Library.open(tmp_path / "set"), "")
    trained = [example for example in examples if example.split == "train"]
    assert part.items.keys() == {example.path for example in trained}
    assert {(pair.id, pair.prompt) for pair in pairs} == {
        (example.path, caption) for example in trained for caption in example.captions
    }
    with pytest.raises(BadInput, match=r"has no classes.*--classes captions"):
        find_pairs(Library.open(tmp_path / "set"), "folders")


def test_a_data_set_without_a_list_is_refused(tmp_path: Path) -> None:
    write_data_set("cub", tmp_path / "set")
    (next((tmp_path / "set").rglob("images.txt"))).unlink()
    for classes in ("", "folders"):
        with pytest.raises(BadInput, match=r"CUB-200-2011: `images.txt` is missing"):
            find_pairs(Library.open(tmp_path / "set"), classes)


def test_captions_need_no_names_of_folders(tmp_path: Path) -> None:
    write_data_set("cub", tmp_path / "set")
    (next((tmp_path / "set").rglob("images.txt"))).unlink()
    image = next((tmp_path / "set").rglob("*.jpg"))
    row = json.dumps({"file_name": image.name, "text": "a wren on a twig"})
    (image.parent / "metadata.jsonl").write_text(row, encoding="utf-8")
    _, pairs = find_pairs(Library.open(tmp_path / "set"), "captions")
    assert "a wren on a twig" in {pair.prompt for pair in pairs}


@pytest.mark.parametrize("layout", ["cub", "dogs"])
def test_a_library_that_was_written_from_a_data_set_has_its_names(layout: str, tmp_path: Path) -> None:
    write_data_set(layout, tmp_path / "set")
    data_set = recognise(tmp_path / "set")
    written = write_library(data_set, data_set.split("train"), tmp_path / "library")
    _, pairs = find_pairs(Library.open(written), "folders")
    assert {pair.id: pair.label for pair in pairs} == {
        example.path: example.class_name for example in data_set.split("train")
    }
