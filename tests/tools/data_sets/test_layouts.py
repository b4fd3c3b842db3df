"""Every layout: a tiny folder is written, recognised, and read as the same examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.data_set_folders import CLASSES, WRITERS, write_data_set

from pleinair.tools.data_sets.library import write_library
from pleinair.tools.data_sets.recognise import LAYOUTS, layouts_of, recognise
from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.readers.folder import Folder
from pleinair.tools.retrieval.readers.names import ClassFolders
from pleinair.tools.retrieval.realrag.pairs import pairs_by_caption, pairs_by_folder
from pleinair.tools.types import BadInput


@pytest.mark.parametrize("writer", sorted(WRITERS))
@pytest.mark.parametrize("wrapped", ["", "archive/unpacked"])
def test_a_folder_is_recognised_with_all_its_examples(tmp_path: Path, writer: str, wrapped: str) -> None:
    layout, _, variant = writer.partition(":")
    written = write_data_set(layout, tmp_path / wrapped, variant=variant)
    data_set = recognise(tmp_path)
    assert data_set.layout is LAYOUTS[layout]
    paths = [
        data_set.file(example).relative_to(tmp_path / wrapped).as_posix() for example in data_set.examples
    ]
    facts = {(e.path, e.class_name, e.captions, e.split, *sorted(e.facts.items())) for e in written}
    assert {
        (path, e.class_name, e.captions, e.split, *sorted(e.facts.items()))
        for path, e in zip(paths, data_set.examples, strict=True)
    } == facts
    assert all(data_set.file(example).is_file() for example in data_set.examples)
    has_split = layout == "wikiart" or any(example.split for example in written)
    kinds = [text.partition(":")[0] for text in data_set.problems]
    assert kinds == ([] if has_split else ["no split"])
    names = dict.fromkeys(example.class_name for example in written if example.class_name)
    assert set(data_set.class_names) == set(names)
    if layout not in ("wikiart", "coco", "flickr30k") and variant not in ("2021", "folders"):
        assert [name.lower() for name in data_set.class_names] == [*CLASSES]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_names_keep_their_spelling(tmp_path: Path, layout: str) -> None:
    names = [
        "ruby-lipped cattleya",
        "colt's foot",
        "grebe of ærø",
        "f/a-18" if layout == "aircraft" else "r4",
    ]
    variant = "table" if layout == "wikiart" else ""  # a file's name has no hyphens of its own
    written = write_data_set(layout, tmp_path, names, train=1, test=1, variant=variant)
    data_set = recognise(tmp_path)
    assert {(e.path, e.class_name, e.captions) for e in data_set.examples} == {
        (e.path, e.class_name, e.captions) for e in written
    }


def test_with_captions_of_two_years_the_images_decide(tmp_path: Path) -> None:
    write_data_set("coco", tmp_path)
    for split in ("train", "val"):
        file = tmp_path / f"annotations/captions_{split}2017.json"
        file.with_name(f"captions_{split}2014.json").write_bytes(file.read_bytes())
    assert {e.path.partition("/")[0] for e in recognise(tmp_path).examples} == {"train2017", "val2017"}
    (tmp_path / "train2014").mkdir()
    with pytest.raises(BadInput, match="of 2017 and of 2014"):
        recognise(tmp_path)


def test_karpathys_list_finds_the_images_by_their_names_of_2017(tmp_path: Path) -> None:
    written = write_data_set("coco", tmp_path, variant="karpathy")
    listed = json.loads((tmp_path / "dataset_coco.json").read_text("utf-8"))
    for image in listed["images"]:
        image["filename"] = f"COCO_val2014_{image['filename']}"
    (tmp_path / "dataset_coco.json").write_text(json.dumps(listed), "utf-8")
    (tmp_path / "val2014").rename(tmp_path / "train2017")
    examples = recognise(tmp_path).examples
    assert [(e.path, e.captions, e.split) for e in examples] == [
        (e.path.replace("val2014", "train2017"), e.captions, e.split) for e in written
    ]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_layout_says_what_it_is_where_it_is_from_and_under_which_license(layout: str) -> None:
    each = LAYOUTS[layout]
    assert all((each.title, each.size, each.license, each.source, each.needs))
    assert layout in WRITERS


@pytest.mark.parametrize(
    "paths",
    [
        ["Holiday 2019/a.jpg", "Grandpa 2012/b.jpg"],
        ["Realism/a.jpg", "other/b.jpg"],
        ["images/001/a.jpg", "images/002.cat/b.jpg"],
        ["train/cat/a.jpg", "val/dog/b.jpg", "categories.txt"],
        ["a.jpg", "metadata.jsonl", "results.csv", "metadata.csv"],
        ["train/n12/a.jpg", "n0144076/b.jpg"],
        ["train2017.json", "val2017.json", "images/a.jpg"],
    ],
)
def test_a_folder_of_ones_own_is_no_data_set(tmp_path: Path, paths: list[str]) -> None:
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("filename,artist,title,description\n", "utf-8")
    assert layouts_of(tmp_path) == ()


def test_a_written_library_is_no_data_set(tmp_path: Path) -> None:
    write_data_set("cub", tmp_path / "data")
    data_set = recognise(tmp_path / "data")
    assert [layout.name for layout in layouts_of(tmp_path / "data")] == ["cub"]
    assert layouts_of(write_library(data_set, data_set.examples, tmp_path / "library")) == ()
    with pytest.raises(BadInput, match="is a library that was written from a data set"):
        recognise(tmp_path / "library")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("n02085620-Chihuahua", "Chihuahua"),
        ("n02086240-Shih-Tzu", "Shih-Tzu"),
        ("n02098105-soft-coated_wheaten_terrier", "soft-coated wheaten terrier"),
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("n01440764", ""),
        (
            "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_rubellus",
            "Lumbricus rubellus",
        ),
        ("barn_owl", "barn owl"),
        ("2761", ""),
    ],
)
def test_a_code_in_a_folders_name_is_no_class(folder: str, name: str) -> None:
    described = list(ClassFolders().read(Folder(Path(), [f"{folder}/a.jpg"])))
    assert [each.caption for each in described] == ([name] if name else [])
    items = [Item(f"train/{folder}/a.jpg", 1, 1)]
    if name:
        assert [pair.prompt for pair in pairs_by_folder(items)] == [f"A photo of a {name}"]
    else:
        with pytest.raises(BadInput, match=f"'{folder}' is named by a code"):
            pairs_by_folder(items)


def test_each_caption_of_an_image_is_a_prompt_of_its_own() -> None:
    items = [Item("a.jpg", 1, 1, caption="a wren\na brown bird"), Item("b.jpg", 1, 1)]
    pairs = pairs_by_caption(items)
    assert [(pair.id, pair.prompt) for pair in pairs] == [("a.jpg", "a wren"), ("a.jpg", "a brown bird")]
    assert len({pair.label for pair in pairs}) == 1
