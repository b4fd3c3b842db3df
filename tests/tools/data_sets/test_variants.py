"""Copies of data sets that differ from the archives: other lists of names, other cases, other places."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.data_set_folders import CLASSES, write_data_set

from pleinair.tools.data_sets.data_set import Example
from pleinair.tools.data_sets.recognise import recognise
from pleinair.tools.types import BadInput

Rows = Sequence[tuple[str, Example]]


def names_of(folder: Path) -> set[tuple[str, str, str]]:
    return {(e.path, e.class_name, e.split) for e in recognise(folder).examples}


def test_names_in_another_case_and_with_another_ending_are_found(tmp_path: Path) -> None:
    written = write_data_set("cub", tmp_path)
    root = tmp_path / "CUB_200_2011"
    first = tmp_path / written[0].path
    first.rename(first.with_suffix(".JPEG"))
    second = tmp_path / written[1].path
    second.rename(second.with_name(second.name.upper()))
    for name in ("images.txt", "classes.txt", "image_class_labels.txt", "train_test_split.txt"):
        (root / name).rename(root / name.upper())
    examples = recognise(tmp_path).examples
    assert len(examples) == len(written)
    assert all((tmp_path / example.path).is_file() for example in examples)
    assert [e.captions for e in examples] == [e.captions for e in written]


def _class_index(folder: Path, rows: list[str]) -> None:
    index = {str(n): [row[:9], row[10:].split(",")[0].replace(" ", "_")] for n, row in enumerate(rows)}
    (folder / "imagenet_class_index.json").write_text(json.dumps(index), "utf-8")


def _words(folder: Path, rows: list[str]) -> None:
    lines = [f"{row[:9]}\t{row[10:]}\n" for row in [*rows, "n00001740 entity", "n99999999 crane"]]
    (folder / "words.txt").write_text("".join(lines), "utf-8")


def _synset_words(folder: Path, rows: list[str]) -> None:
    (folder / "synset_words.txt").write_text("\n".join(rows), "utf-8")


@pytest.mark.parametrize("write", [_class_index, _words, _synset_words])
def test_imagenets_names_come_from_any_of_their_lists(
    tmp_path: Path, write: Callable[[Path, list[str]], None]
) -> None:
    written = write_data_set("imagenet", tmp_path)
    mapping = tmp_path / "LOC_synset_mapping.txt"
    write(tmp_path, mapping.read_text("utf-8").splitlines())
    mapping.unlink()
    assert names_of(tmp_path) == {(e.path, e.class_name, e.split) for e in written}
    assert recognise(tmp_path).class_names == CLASSES


def test_kaggles_tree_of_imagenet_has_flat_val_and_its_labels_in_a_table(tmp_path: Path) -> None:
    written = write_data_set("imagenet", tmp_path / "ILSVRC/Data/CLS-LOC")
    root = tmp_path / "ILSVRC/Data/CLS-LOC"
    rows, expected = ["ImageId,PredictionString"], set[tuple[str, str, str]]()
    for example in written:
        file = Path(example.path)
        if example.split == "val":
            (root / file).rename(root / "val" / file.name)
            file = Path("val") / file.name
            rows.append(f"{file.stem},{example.facts['code']} 1 2 3 4 ")
        expected.add((f"ILSVRC/Data/CLS-LOC/{file}", example.class_name, example.split))
    for folder in (root / "val").iterdir():
        if folder.is_dir():
            folder.rmdir()
    boxes = tmp_path / "ILSVRC/Annotations/CLS-LOC/train/n01440764"
    boxes.mkdir(parents=True)
    (boxes / "n01440764_0.xml").write_text("<annotation/>", "utf-8")
    (root / "LOC_synset_mapping.txt").rename(tmp_path / "LOC_synset_mapping.txt")
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(rows), "utf-8")
    assert names_of(tmp_path) == expected
    (tmp_path / "LOC_val_solution.csv").unlink()
    data_set = recognise(tmp_path)
    assert {example.split for example in data_set.examples} == {"train"}
    assert data_set.problems[0].startswith("images of val left out: ")


def test_inaturalists_list_of_2021_has_common_names(tmp_path: Path) -> None:
    written = write_data_set("inaturalist", tmp_path, variant="2021")
    for split in ("train", "val"):
        examples = [example for example in written if example.split == split]
        images = [{"id": n, "file_name": e.path} for n, e in enumerate(examples)]
        notes = [{"image_id": n, "category_id": int(e.facts["code"])} for n, e in enumerate(examples)]
        categories = [{"id": n, "name": f"Avis {'abc'[n]}", "common_name": f"Bird {n}"} for n in range(3)]
        value = {"images": images, "annotations": notes, "categories": categories}
        (tmp_path / f"{split}.json").write_text(json.dumps(value), "utf-8")
    data_set = recognise(tmp_path)
    assert data_set.class_names == ("Bird 0", "Bird 1", "Bird 2")
    assert {(e.path, e.class_name, e.split) for e in data_set.examples} == {
        (e.path, f"Bird {int(e.facts['code'])}", e.split) for e in written
    }


def test_a_copy_of_the_cars_with_doubled_folders(tmp_path: Path) -> None:
    written = write_data_set("cars", tmp_path)
    for folder in ("cars_train", "cars_test"):
        (tmp_path / folder).rename(tmp_path / "inner")
        (tmp_path / folder).mkdir()
        (tmp_path / "inner").rename(tmp_path / folder / folder)
    assert names_of(tmp_path) == {
        (f"{e.path.partition('/')[0]}/{e.path}", e.class_name, e.split) for e in written
    }


def test_the_cars_to_train_alone_are_read_and_labels_of_test_are_asked_for(tmp_path: Path) -> None:
    write_data_set("cars", tmp_path)
    (tmp_path / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(BadInput, match="`cars_test_annos_withlabels.mat` is missing"):
        recognise(tmp_path)
    (tmp_path / "cars_test").rename(tmp_path.parent / f"{tmp_path.name}-away")
    assert {example.split for example in recognise(tmp_path).examples} == {"train"}


def test_kaggles_table_of_wikiart_has_splits_and_spellings(tmp_path: Path) -> None:
    written = write_data_set("wikiart", tmp_path)
    rows = ["filename,artist,genre,description,subset"]
    for n, example in enumerate(written):
        name = example.path.removeprefix("wikiart/")
        rows.append(f"{name},ada lovelace,\"['Cubism']\",a-title,{'test' if n % 3 else 'train'}")
    (tmp_path / "wikiart/classes.csv").write_text("\n".join(rows), "utf-8")
    data_set = recognise(tmp_path)
    assert {(e.path, e.captions, dict(e.facts)["artist"]) for e in data_set.examples} == {
        (e.path, e.captions, "Ada Lovelace") for e in written
    }
    assert len(data_set.split("train")) == len(written) // 3


def test_karpathys_list_of_flickr_takes_precedence_over_the_archives(tmp_path: Path) -> None:
    write_data_set("flickr30k", tmp_path, variant="tokens")
    written = write_data_set("flickr30k", tmp_path)
    assert [(e.path, e.captions, e.split) for e in recognise(tmp_path).examples] == [
        (e.path, e.captions, e.split) for e in written
    ]
