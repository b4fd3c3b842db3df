"""Lists that are missing, cut off or contradictory: each names its file, and nothing is guessed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.data_set_folders import write_data_set

from pleinair.tools.data_sets.recognise import LAYOUTS, recognise
from pleinair.tools.types import BadInput

MISSING = [  # layout, variant, file, and what the message names as its archive
    ("imagenet", "", "LOC_synset_mapping.txt", "words.txt"),
    ("imagenet", "flat", "ILSVRC2012_devkit_t12/data/meta.mat", "ILSVRC2012_devkit_t12.tar.gz"),
    ("inaturalist", "", "categories.json", "categories.json.tar.gz"),
    ("cub", "", "CUB_200_2011/images.txt", "CUB_200_2011.tgz"),
    ("cub", "", "CUB_200_2011/classes.txt", "CUB_200_2011.tgz"),
    ("cub", "", "CUB_200_2011/train_test_split.txt", "CUB_200_2011.tgz"),
    ("aircraft", "", "fgvc-aircraft-2013b/data/variants.txt", "fgvc-aircraft-2013b.tar.gz"),
    ("aircraft", "", "fgvc-aircraft-2013b/data/images_variant_test.txt", "fgvc-aircraft-2013b.tar.gz"),
    ("cars", "", "devkit/cars_meta.mat", "car_devkit.tgz"),
    ("cars", "", "devkit/cars_train_annos.mat", "car_devkit.tgz"),
    ("cars", "", "cars_test_annos_withlabels.mat", "page"),
    ("flowers", "", "imagelabels.mat", "102flowers.tgz"),
    ("flowers", "", "setid.mat", "102flowers.tgz"),
]


@pytest.mark.parametrize(("layout", "variant", "file", "archive"), MISSING)
def test_a_missing_list_is_named_with_archive_size_license_and_publisher(
    tmp_path: Path, layout: str, variant: str, file: str, archive: str
) -> None:
    write_data_set(layout, tmp_path, variant=variant)
    (tmp_path / file).unlink()
    with pytest.raises(BadInput) as caught:
        recognise(tmp_path)
    text, each = str(caught.value), LAYOUTS[layout]
    expected = "LOC_synset_mapping.txt" if variant == "flat" else Path(file).name
    assert f"`{expected}` is missing" in text
    assert all(part in text for part in (archive, each.size, each.license, each.source))


def lines(change: Callable[[list[str]], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        rows = path.read_text("utf-8").splitlines()
        change(rows)
        path.write_text("".join(f"{row}\n" for row in rows), "utf-8")

    return apply


def value(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        data = json.loads(path.read_text("utf-8"))
        change(data)
        path.write_text(json.dumps(data), "utf-8")

    return apply


def half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def labels_of_flowers(path: Path) -> None:
    from scipy.io import savemat

    savemat(path, {"labels": [1, 1, 9, 2, 2, 2, 3, 3, 3]})


def fewer_flowers(path: Path) -> None:
    from scipy.io import savemat

    savemat(path, {"labels": [1, 1, 1, 2, 2, 2, 3, 3]})


def first(text: str) -> Callable[[Path], None]:
    return lines(lambda rows: rows.__setitem__(0, text))


def more(text: str) -> Callable[[Path], None]:
    return lines(lambda rows: rows.append(text))


SHORT = lines(lambda rows: rows.pop())
TWICE = lines(lambda rows: rows.append(rows[0]))
CUB, COCO = "CUB_200_2011", "annotations/captions_train2017.json"
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
WRONG: list[tuple[str, str, str, Callable[[Path], None], str]] = [
    ("cub", "", f"{CUB}/image_class_labels.txt", first("1 7"), r"not in classes.txt \(3\): 1 \(7\)"),
    ("cub", "", f"{CUB}/image_class_labels.txt", SHORT, "1 .none."),
    ("cub", "", f"{CUB}/train_test_split.txt", first("1 x"), "without 0 or 1"),
    ("cub", "", f"{CUB}/images.txt", SHORT, "not in images.txt: 1"),
    ("cub", "", f"{CUB}/images.txt", TWICE, "there twice: 1 .line 10"),
    ("cub", "", f"{CUB}/images.txt", first("1 ../../x.jpg"), "leave the data set"),
    ("cub", "", f"{CUB}/classes.txt", more("x y"), "without a number and a value: 1"),
    ("aircraft", "", "fgvc-aircraft-2013b/data/variants.txt", SHORT, "not in variants.txt"),
    ("flowers", "", "imagelabels.mat", labels_of_flowers, r"outside 1 to 3 in imagelabels.mat: 1 \(9\)"),
    ("flowers", "", "imagelabels.mat", fewer_flowers, r"only one of imagelabels.mat and setid.mat: 1 \(9\)"),
    ("flowers", "", "setid.mat", half, "setid.mat.*MATLAB"),
    ("flowers", "folders", "cat_to_name.json", value(lambda names: names.pop("1")), "a name for each number"),
    ("coco", "", COCO, half, "not JSON"),
    ("coco", "", COCO, value(lambda data: data.pop("images")), "no object with a list `images`"),
    (
        "coco",
        "",
        COCO,
        value(lambda data: data["annotations"][0].pop("caption")),
        "entries of `annotations` without image_id, caption: 1",
    ),
    ("coco", "", COCO, value(lambda data: data["images"].pop()), "captions of images that are not listed: 5"),
    ("coco", "", COCO, value(lambda data: data["annotations"].clear()), "images without a caption: 6"),
    (
        "coco",
        "karpathy",
        "dataset_coco.json",
        value(lambda data: data["images"][0].update(split="dev")),
        "dev",
    ),
    ("flickr30k", "tokens", "flickr30k/results_20130124.token", more("x"), "1 .line 46: x"),
    ("flickr30k", "table", "flickr_annotations_30k.csv", more("a,b,c,d,e"), "1 .d."),
    (
        "inaturalist",
        "",
        "train2018.json",
        value(lambda data: data["annotations"].pop()),
        "without a category of the list: 1",
    ),
    ("inaturalist", "", "train2018.json", half, "not JSON"),
    ("imagenet", "", "LOC_synset_mapping.txt", SHORT, "in no list of names: 1 .n01440766"),
    ("imagenet", "flat", TRUTH, SHORT, "images of val without a label"),
    ("imagenet", "flat", TRUTH, first("1001"), "line 1: 1001"),
    ("imagenet", "flat", TRUTH, lines(lambda rows: rows.clear()), "images of val without a label"),
    ("cub", "", f"{CUB}/images.txt", lines(lambda rows: rows.clear()), "not in images.txt: 9"),
    (
        "imagenet_lt",
        "",
        "ImageNet_LT_train.txt",
        lines(lambda rows: rows.insert(0, rows.pop(0)[:-1] + "5")),
        "another label",
    ),
    ("imagenet_lt", "", "ImageNet_LT_train.txt", first("x.jpg 0"), "line 1: x.jpg 0"),
]


@pytest.mark.parametrize(("layout", "variant", "file", "change", "message"), WRONG)
def test_a_wrong_list_is_named_with_the_number_of_its_faults(
    tmp_path: Path, layout: str, variant: str, file: str, change: Callable[[Path], None], message: str
) -> None:
    write_data_set(layout, tmp_path, variant=variant)
    change(tmp_path / file)
    with pytest.raises(BadInput) as caught:
        recognise(tmp_path)
    assert re.search(message, str(caught.value)), caught.value


def test_missing_images_are_left_out_and_counted(tmp_path: Path) -> None:
    written = write_data_set("cub", tmp_path)
    for example in written[:2]:
        (tmp_path / example.path).unlink()
    data_set = recognise(tmp_path)
    assert set(data_set.examples) == set(written[2:])
    assert data_set.problems[0].startswith("listed images that are missing and left out: 2 (")
    for example in written:
        (tmp_path / example.path).unlink(missing_ok=True)
    with pytest.raises(BadInput, match="none of 9 listed images"):
        recognise(tmp_path)


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    write_data_set("cub", tmp_path)
    for path in (tmp_path / "CUB_200_2011/images/002.Mandarin_duck").iterdir():
        path.unlink()
    data_set = recognise(tmp_path)
    assert data_set.problems[-1] == "classes without an image: 1 (Mandarin duck)"
    assert len(data_set.class_names) == 3


def test_an_unknown_folder_is_answered_with_what_is_there_and_what_each_layout_needs(tmp_path: Path) -> None:
    (tmp_path / "Holiday 2019").mkdir()
    (tmp_path / "notes.txt").write_text("", "utf-8")
    with pytest.raises(BadInput) as caught:
        recognise(tmp_path)
    text = str(caught.value)
    assert "has Holiday 2019/, notes.txt." in text
    assert all(f"{each.name}: {each.title}, by {each.needs[0]}" in text for each in LAYOUTS.values())
    assert "Name the folder that a data set's archives were unpacked in. Accepted:" in text
    with pytest.raises(BadInput, match="No folder"):
        recognise(tmp_path / "absent")


def test_two_data_sets_in_one_folder_are_told_apart_by_name_only(tmp_path: Path) -> None:
    write_data_set("cub", tmp_path / "birds")
    flowers = write_data_set("flowers", tmp_path / "flowers")
    with pytest.raises(BadInput, match="several data sets: cub .by birds/.*, flowers .by flo"):
        recognise(tmp_path)
    assert recognise(tmp_path / "birds").layout.name == "cub"
    assert len(recognise(tmp_path, "flowers").examples) == len(flowers)
    with pytest.raises(BadInput, match="layout = 'birds': unknown"):
        recognise(tmp_path, "birds")


def test_without_scipy_its_installation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data_set("flowers", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(BadInput, match="SciPy is not installed. Install it"):
        recognise(tmp_path)


def test_synsets_of_one_first_name_take_another_or_are_told_apart_by_code(tmp_path: Path) -> None:
    write_data_set("imagenet", tmp_path, ("maillot", "crane", "cardigan", "suit", "bird", "dog"))
    names = ("maillot", "crane", "cardigan", "maillot, tank suit", "crane", "Cardigan, Cardigan Welsh corgi")
    rows = "".join(f"n{1440764 + n:08d} {name}\n" for n, name in enumerate(names))
    (tmp_path / "LOC_synset_mapping.txt").write_text(rows, "utf-8")
    data_set = recognise(tmp_path)
    expected = ("maillot", "crane", "cardigan", "tank suit", "crane", "Cardigan Welsh corgi")
    assert data_set.class_names == expected
    assert data_set.problems == ("names of several classes, which `code` tells apart: 1 (crane)",)
    codes = {example.facts["code"] for example in data_set.examples if example.class_name == "crane"}
    assert codes == {"n01440765", "n01440768"}
    classes = [(name, {e.facts["code"] for e in examples}) for name, examples in data_set.classes("train")]
    assert [name for name, _ in classes].count("crane") == 2
    assert all(len(codes) == 1 for _, codes in classes)
    assert [name for name, _ in data_set.classes("train", limit=3)] == ["maillot", "crane", "crane"]


def test_a_folder_in_a_data_set_and_packed_archives_are_answered_with_what_to_do(tmp_path: Path) -> None:
    write_data_set("cub", tmp_path / "data")
    above = tmp_path / "data/CUB_200_2011"
    with pytest.raises(BadInput, match=f"Name the folder above it, {above}: it holds CUB-200-2011"):
        recognise(above / "images")
    (tmp_path / "imagenet/train").mkdir(parents=True)
    (tmp_path / "imagenet/train/n01440764.tar").write_bytes(b"")
    with pytest.raises(BadInput, match=r"Unpack train/n01440764.tar and the other archives first"):
        recognise(tmp_path / "imagenet")


def test_a_class_without_images_of_one_split_is_named(tmp_path: Path) -> None:
    write_data_set("imagenet", tmp_path)
    shutil.rmtree(tmp_path / "train/n01440765")
    assert recognise(tmp_path).problems == ("classes without an image of train: 1 (mandarin duck)",)
