"""Copies of data sets that differ from the archives: other lists of names, other cases, other places."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from unicodedata import normalize

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


def _write_in(folder: Path, *, layout: str, variant: str = "", moves: Sequence[tuple[str, str]] = ()) -> None:
    write_data_set(layout, folder, variant=variant)
    for old, new in moves:
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / old).rename(folder / new)


def test_kaggles_copy_of_the_cars_has_a_list_of_images_that_it_lacks(tmp_path: Path) -> None:
    _write_in(tmp_path, layout="cars", moves=[("cars_train", "in"), ("in", "cars_train/cars_train")])
    write_data_set("cars", tmp_path / "other", variant="one_list")
    (tmp_path / "other/cars_annos.mat").rename(tmp_path / "cars_annos.mat")
    shutil.rmtree(tmp_path / "other")
    assert len(recognise(tmp_path).split("train")) == 6
    shutil.rmtree(tmp_path / "devkit")
    with pytest.raises(BadInput, match="`cars_meta.mat` is missing. It is in car_devkit"):
        recognise(tmp_path)


def test_folders_of_the_dogs_in_train_and_test_are_splits(tmp_path: Path) -> None:
    write_data_set("dogs", tmp_path / "a", variant="without_lists")
    shutil.copytree(tmp_path / "a/Images", tmp_path / "cropped/test")
    (tmp_path / "a/Images").rename(tmp_path / "cropped/train")
    data_set = recognise(tmp_path)
    assert (len(data_set.split("train")), len(data_set.split("test")), data_set.problems) == (9, 9, ())


@pytest.mark.parametrize("quoted", [False, True])
def test_a_copy_of_flickr_has_captions_between_commas(tmp_path: Path, quoted: bool) -> None:
    written = write_data_set("flickr30k", tmp_path, variant="tokens")
    shutil.rmtree(tmp_path / "flickr30k")
    texts = {e.path: tuple(f'{text}, a "yes" .' for text in e.captions) for e in written}
    rows = ["image_name,comment_number,comment"]
    for path, captions in texts.items():
        cells = ['"' + text.replace('"', '""') + '"' if quoted else text for text in captions]
        rows += [f"{Path(path).name},{n}, {cell}" for n, cell in enumerate(cells)]
    (tmp_path / "captions.txt").write_text("\n".join(rows), "utf-8")
    assert {e.path: e.captions for e in recognise(tmp_path).examples} == texts


@pytest.mark.parametrize(("year", "images"), [(2017, "train_val_images"), (2019, "train_val2019")])
def test_inaturalists_lists_of_other_years(tmp_path: Path, year: int, images: str) -> None:
    written = write_data_set("inaturalist", tmp_path)
    for split in ("train", "val"):
        file = tmp_path / f"{split}2018.json"
        (tmp_path / f"{split}{year}.json").write_text(
            file.read_text("utf-8").replace("train_val2018", images), "utf-8"
        )
        file.unlink()
    (tmp_path / "train_val2018").rename(tmp_path / images)
    assert names_of(tmp_path) == {
        (e.path.replace("train_val2018", images), e.class_name, e.split) for e in written
    }


def test_a_folder_of_inaturalist_without_a_list_asks_for_that_of_its_year(tmp_path: Path) -> None:
    _write_in(tmp_path, layout="inaturalist", moves=[("train_val2018", "train_val2019")])
    for split in ("train", "val"):
        (tmp_path / f"{split}2018.json").unlink()
    with pytest.raises(BadInput, match="`train2019.json` is missing"):
        recognise(tmp_path)


def test_torchvisions_folders_of_inaturalist_are_splits(tmp_path: Path) -> None:
    moves = [("train", "2021_train"), ("val", "2021_valid")]
    _write_in(tmp_path, layout="inaturalist", variant="2021", moves=moves)
    assert {(e.path.partition("/")[0], e.split) for e in recognise(tmp_path).examples} == {
        ("2021_train", "train"),
        ("2021_valid", "val"),
    }


@pytest.mark.parametrize("present", ["train", "train_mini", "both"])
def test_of_inaturalists_two_lists_to_train_one_is_read(tmp_path: Path, present: str) -> None:
    written = write_data_set("inaturalist", tmp_path, variant="2021")
    for name in ("train", "train_mini"):
        examples = [example for example in written if example.split == "train"]
        value = {
            "images": [{"id": n, "file_name": f"{name}{e.path[5:]}"} for n, e in enumerate(examples)],
            "annotations": [
                {"image_id": n, "category_id": int(e.facts["code"])} for n, e in enumerate(examples)
            ],
            "categories": [{"id": n, "name": f"Avis {'abc'[n]}"} for n in range(3)],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(value), "utf-8")
    if present == "both":
        shutil.copytree(tmp_path / "train", tmp_path / "train_mini")
    elif present == "train_mini":
        (tmp_path / "train").rename(tmp_path / "train_mini")
    data_set = recognise(tmp_path)
    folder = "train_mini" if present == "train_mini" else "train"
    assert [e.path.partition("/")[0] for e in data_set.examples] == [folder] * 6
    assert data_set.problems == ()


def test_the_lists_of_imagenet_lt_lie_over_kaggles_tree_and_may_be_absolute(tmp_path: Path) -> None:
    root = "ILSVRC/Data/CLS-LOC"
    _write_in(tmp_path, layout="imagenet_lt", moves=[(part, f"{root}/{part}") for part in ("train", "val")])
    boxes = tmp_path / "ILSVRC/Annotations/CLS-LOC/train/n01440764"
    boxes.mkdir(parents=True)
    (boxes / "n01440764_0.xml").write_text("<annotation/>", "utf-8")
    for file in tmp_path.glob("ImageNet_LT_*.txt"):
        rows = [f"/my data/imagenet/{row}\n" for row in file.read_text("utf-8").splitlines()]
        file.write_text("".join(rows), "utf-8")
    data_set = recognise(tmp_path)
    assert len(data_set.examples) == 9
    assert all(example.path.startswith(root) for example in data_set.examples)


def test_a_copy_of_imagenet_has_its_names_by_synset_and_train_in_parts(tmp_path: Path) -> None:
    _write_in(tmp_path, layout="imagenet", moves=[("train", "train.X1"), ("val", "val.X")])
    mapping = tmp_path / "LOC_synset_mapping.txt"
    names = {row[:9]: row[10:] for row in mapping.read_text("utf-8").splitlines()}
    (tmp_path / "Labels.json").write_text(json.dumps(names), "utf-8")
    mapping.unlink()
    data_set = recognise(tmp_path)
    assert (data_set.class_names, len(data_set.split("train")), len(data_set.split("val"))) == (CLASSES, 6, 3)


def test_an_image_of_val_by_another_name_is_no_image_of_val(tmp_path: Path) -> None:
    written = write_data_set("imagenet", tmp_path, variant="flat")
    shutil.copy(tmp_path / written[0].path, tmp_path / "val/extra.jpg")
    assert len(recognise(tmp_path).examples) == len(written)


@pytest.mark.parametrize(("layout", "variant"), [("flickr30k", "table"), ("wikiart", "table")])
def test_blank_rows_of_a_table_are_skipped(tmp_path: Path, layout: str, variant: str) -> None:
    written = write_data_set(layout, tmp_path, variant=variant)
    for file in tmp_path.rglob("*.csv"):
        file.write_text(f"{file.read_text('utf-8')}\n   \n", "utf-8")
    assert len(recognise(tmp_path).examples) == len(written)


def test_links_to_folders_count_and_those_to_nothing_or_in_a_circle_do_not(tmp_path: Path) -> None:
    _write_in(tmp_path / "data", layout="flowers", variant="folders", moves=[("train/1", "../elsewhere")])
    (tmp_path / "data/train/1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/train/2/circle").symlink_to(tmp_path / "data/train")
    (tmp_path / "data/train/3/nothing.jpg").symlink_to(tmp_path / "nothing.jpg")
    assert len(recognise(tmp_path / "data").examples) == 9
    cub = write_data_set("cub", tmp_path / "cub")
    (tmp_path / "cub" / cub[0].path).unlink()
    (tmp_path / "cub" / cub[0].path).symlink_to(tmp_path / "nothing.jpg")
    assert "missing and left out: 1" in recognise(tmp_path / "cub").problems[0]


def test_a_mac_s_folder_beside_the_data_does_not_count(tmp_path: Path) -> None:
    write_data_set("wikiart", tmp_path)
    shutil.copytree(tmp_path / "wikiart", tmp_path / "__MACOSX/wikiart")
    assert len(recognise(tmp_path).examples) == 9


@pytest.mark.parametrize("layout", ["coco", "flickr30k"])
def test_karpathys_archive_has_lists_of_two_data_sets_of_which_the_images_decide(
    tmp_path: Path, layout: str
) -> None:
    variants = {"coco": "karpathy", "flickr30k": ""}
    for other, variant in variants.items():
        write_data_set(other, tmp_path / other, variant=variant)
        (tmp_path / other / f"dataset_{other}.json").rename(tmp_path / f"dataset_{other}.json")
    shutil.rmtree(tmp_path / ("flickr30k" if layout == "coco" else "coco"))
    data_set = recognise(tmp_path)
    assert (data_set.layout.name, len(data_set.examples)) == (layout, 9)


def test_names_in_another_unicode_form_are_found(tmp_path: Path) -> None:
    written = write_data_set("wikiart", tmp_path, ["grebe of ærø", "Émile"], variant="lists")
    for example in written:
        (tmp_path / example.path).rename(tmp_path / normalize("NFD", example.path))
    examples = recognise(tmp_path).examples
    assert {normalize("NFC", e.path) for e in examples} == {e.path for e in written}
    assert all((tmp_path / e.path).is_file() for e in examples)


def test_an_empty_file_of_captions_is_named(tmp_path: Path) -> None:
    written = write_data_set("cub", tmp_path)
    name = Path(written[0].path).relative_to("CUB_200_2011/images").with_suffix(".txt")
    (tmp_path / "text_c10" / name).write_text("\n", "utf-8")
    assert recognise(tmp_path).problems[0].startswith("images without captions in text_c10/: 1 (")
