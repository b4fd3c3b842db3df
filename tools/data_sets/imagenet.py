"""ImageNet of ILSVRC 2012 (Russakovsky et al. 2015): its archives, Kaggle's tree, or folders by synset.

The class name is the first of a synset's names. Where two classes share it, one with further names takes
the first that is its own ("maillot, tank suit"); the two cranes, bird and machine, have none: their `code`
tells them apart. Images without a label (of `test`) are not listed.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pleinair.tools.data_sets.data_set import Contents, Example, Layout, split_of
from pleinair.tools.data_sets.place import Faults, Place, is_image, readable

SYNSET = r"n\d{8}"
_VAL = re.compile(r"ILSVRC2012_val_(\d{8})\.", re.IGNORECASE)
_DEVKIT = "ILSVRC2012_devkit_t12.tar.gz (2.5 MB)"
_NAME_FILES = (
    "LOC_synset_mapping.txt",
    "imagenet_class_index.json",
    "synset_words.txt",
    "Labels.json",
    "words.txt",
    "meta.mat",
)


def _find(place: Place) -> str:
    return next(iter(synset_folders(place)), "") or _flat_val(place)


def synset_folders(place: Place) -> dict[str, list[str]]:
    """Return the synsets' folders by the folder that they are in, with `/`, where they hold images."""
    parents = place.parents(SYNSET)
    return {
        below or "./": names
        for below, names in parents.items()
        if any(is_image(file) for name in names[:3] for file in os.listdir(place.folder / below / name))
    }


def _flat_val(place: Place) -> str:
    return place.find_like(rf"(?<!{SYNSET}/)ILSVRC2012_val_\d{{8}}\.jpe?g")


def _read(place: Place) -> Contents:
    folders, flat = synset_folders(place), _flat_val(place)
    present = sorted({synset for names in folders.values() for synset in names})
    names = synset_names(place, LAYOUT, present)
    unknown = Faults()
    for synset in present:
        if synset not in names:
            unknown.add("class folders that are in no list of names", synset)
    LAYOUT.check(unknown)
    class_names, facts = class_names_of(names), facts_of(names)
    problems: tuple[str, ...] = ()
    examples = [
        Example(path, class_names[synset], split=split_of(below), facts=facts[synset])
        for below, synsets in folders.items()
        for synset in synsets
        for path in place.images(f"{below.removeprefix('./')}{synset}/")
    ]
    labels = _val_labels(place) if flat else {}
    if labels is None and not examples:
        raise LAYOUT.missing("ILSVRC2012_validation_ground_truth.txt", _DEVKIT)
    if labels is None:
        problems = ("images of val left out: ILSVRC2012_validation_ground_truth.txt is missing",)
    elif flat:
        examples += _flat_examples(place, flat, labels, class_names, facts)
    return Contents(tuple(class_names.values()), tuple(examples), problems)


def synset_names(place: Place, layout: Layout, present: Sequence[str]) -> dict[str, str]:
    """Return the names of the synsets, all of each with commas between, in the list's order.

    Raises:
        BadInput: no list of names is there, or it is not one.
    """
    for name in _NAME_FILES:
        if file := place.find(name):
            names = _NAMES_OF[name.rpartition(".")[2]](place, file)
            if name == "words.txt":  # of all 82,115 synsets
                names = {synset: names[synset] for synset in present if synset in names}
            if not names:
                raise layout.wrong(f"{file} names no synset, such as n01440764")
            return names
    raise layout.missing(
        "LOC_synset_mapping.txt", f"Kaggle's archive; or words.txt or meta.mat, in {_DEVKIT}"
    )


def _of_lines(place: Place, file: str) -> dict[str, str]:
    matches = (re.fullmatch(rf"({SYNSET})\s+(.+)", line) for line in place.lines(file))
    return {match[1]: match[2] for match in matches if match}


def _of_json(place: Place, file: str) -> dict[str, str]:
    value = place.json(file)
    if not isinstance(value, dict):
        return {}
    if all(re.fullmatch(SYNSET, key) for key in value):  # a copy of 100 classes has {"n01440764": "tench"}
        return {synset: str(names) for synset, names in value.items()}
    pairs = [value[key] for key in sorted(value, key=int)] if all(map(str.isdecimal, value)) else []
    return {pair[0]: readable(pair[1]) for pair in pairs}


def _of_mat(place: Place, file: str) -> dict[str, str]:
    synsets = _leaves(place, file)
    return {str(row["WNID"]): str(row["words"]) for row in sorted(synsets, key=lambda row: str(row["WNID"]))}


_NAMES_OF = {"txt": _of_lines, "json": _of_json, "mat": _of_mat}


def _leaves(place: Place, file: str) -> list[Any]:
    """Return the rows of the devkit's table for the 1,000 classes; further rows are of inner synsets."""
    table = place.mat(file).get("synsets")
    if table is None:
        raise LAYOUT.wrong(f"{file} has no table `synsets`")
    return [row for row in table.reshape(-1) if int(row["num_children"]) == 0]


def class_names_of(names: Mapping[str, str]) -> dict[str, str]:
    """Return a name for a prompt by synset: the first, or where others have it too, the next of its own."""
    lists = {synset: [name.strip() for name in text.split(",")] for synset, text in names.items()}
    first = Counter(each[0].casefold() for each in lists.values())
    return {
        synset: next((name for name in each if first[name.casefold()] < 2), each[0])
        for synset, each in lists.items()
    }


def facts_of(names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the facts of a class by synset: its code and all its names; one object for all its images."""
    return {synset: {"code": synset, "names": text} for synset, text in names.items()}


def _val_labels(place: Place) -> dict[int, str] | None:
    """Return the synsets of the images of val by their numbers from 1, None without a list of them."""
    if file := place.find("LOC_val_solution.csv"):
        rows = (re.match(rf"ILSVRC2012_val_(\d{{8}}),({SYNSET}) ", line) for line in place.lines(file))
        return {int(row[1]): row[2] for row in rows if row}
    if file := place.find("imagenet_2012_validation_synset_labels.txt"):
        return dict(enumerate(place.lines(file), start=1))
    truth, meta = place.find("ILSVRC2012_validation_ground_truth.txt"), place.find("meta.mat")
    if not truth:
        return None
    if not meta:
        raise LAYOUT.missing("meta.mat", _DEVKIT)
    synsets = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in _leaves(place, meta)}
    lines, faults = place.lines(truth), Faults()
    for number, line in enumerate(lines, start=1):
        if not line.isdecimal() or int(line) not in synsets:
            faults.add(f"labels in {truth} that are not in {meta}", f"line {number}: {line}")
    LAYOUT.check(faults)
    return {number: synsets[int(line)] for number, line in enumerate(lines, start=1)}


def _flat_examples(
    place: Place,
    first: str,
    labels: Mapping[int, str],
    class_names: Mapping[str, str],
    facts: Mapping[str, Mapping[str, str]],
) -> Iterator[Example]:
    faults = Faults()
    for path in place.images(f"{first.rpartition('/')[0]}/"):
        if not (number := _VAL.search(path)):
            continue
        synset = labels.get(int(number[1]), "")
        if synset not in class_names:
            faults.add("images of val without a label of the list of names", path)
        else:
            yield Example(path, class_names[synset], split="val", facts=facts[synset])
    LAYOUT.check(faults)


LAYOUT = Layout(
    name="imagenet",
    title="ImageNet (ILSVRC 2012)",
    size="1,281,167 images to train (138 GB) and 50,000 of val (6 GB), of 1,000 classes",
    license="non-commercial research and education only, by ImageNet's terms of access",
    source="image-net.org, after registration, or Kaggle's ImageNet challenge",
    needs=(
        "train/n01440764/",
        "val/n01440764/ or val/ILSVRC2012_val_00000001.JPEG",
        "LOC_synset_mapping.txt",
    ),
    find=_find,
    read=_read,
)
