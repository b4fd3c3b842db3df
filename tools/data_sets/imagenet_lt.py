"""ImageNet-LT (Liu et al. 2019): lists of a long-tailed part of ImageNet, over its folders."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pleinair.tools.data_sets.data_set import Contents, Example, Layout, Split
from pleinair.tools.data_sets.imagenet import SYNSET, class_names_of, facts_of, synset_folders, synset_names
from pleinair.tools.data_sets.lists import only_present
from pleinair.tools.data_sets.place import Faults, Place

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_LINE = re.compile(rf"((?:.*/)?(?:train|val)/({SYNSET})/\S+)\s+(\d+)")


def _find(place: Place) -> str:
    return place.find(*(f"ImageNet_LT_{split}.txt" for split in _SPLITS))


def _read(place: Place) -> Contents:
    lists = [(file, split) for split in _SPLITS if (file := place.find(f"ImageNet_LT_{split}.txt"))]
    rows = [(*row, split) for file, split in lists for row in _rows(place, file)]
    labels = _labels(rows)
    names = synset_names(place, LAYOUT, sorted(labels))
    unknown = Faults()
    for synset in sorted(labels.keys() - names.keys()):
        unknown.add("classes of the lists that are in no list of names", synset)
    LAYOUT.check(unknown)
    class_names, facts, root = class_names_of(names), facts_of(names), _root(place)
    listed = (
        Example(f"{root}{path}", class_names[synset], split=split, facts=facts[synset])
        for path, synset, _, split in _existing(place, root, rows)
    )
    examples, problems = only_present(place, LAYOUT, listed)
    return Contents(tuple(class_names.values()), examples, problems)


def _rows(place: Place, file: str) -> Iterator[tuple[str, str, int]]:
    """Yield path, synset and label of each line."""
    faults = Faults()
    for number, line in enumerate(place.lines(file), start=1):
        if match := _LINE.fullmatch(line):
            path = "/".join(match[1].split("/")[-3:])
            yield path, match[2], int(match[3])
        else:
            faults.add(
                f"lines of {file} without a path in a synset's folder and a label", f"line {number}: {line}"
            )
    LAYOUT.check(faults)


def _labels(rows: list[tuple[str, str, int, Split]]) -> dict[str, int]:
    """Return the label of each synset; raise `BadInput` for a synset with two."""
    labels, faults = dict[str, int](), Faults()
    for path, synset, label, _ in rows:
        if labels.setdefault(synset, label) != label:
            faults.add("images with another label than the first of their folder", path)
    LAYOUT.check(faults)
    return labels


def _root(place: Place) -> str:
    """Return the folder that `train` and `val` are in."""
    return next((below.rstrip("/").rpartition("/")[0] + "/" for below in synset_folders(place)), "").lstrip(
        "/"
    )


def _existing(
    place: Place, root: str, rows: list[tuple[str, str, int, Split]]
) -> Iterator[tuple[str, str, int, Split]]:
    """Yield the rows with the paths that images have here: those of val may lie in one folder."""
    is_flat = not any(below.rstrip("/").endswith("val") for below in synset_folders(place))
    for path, synset, label, split in rows:
        flat = is_flat and path.startswith("val/")
        yield f"val/{path.rpartition('/')[2]}" if flat else path, synset, label, split


LAYOUT = Layout(
    name="imagenet_lt",
    title="ImageNet-LT",
    size="lists of 115,846 images to train, 20,000 of val and 50,000 to test, over ImageNet's 144 GB",
    license="the lists: not stated; the images: ImageNet's terms, non-commercial research and education only",
    source="github.com/zhmiao/OpenLongTailRecognition-OLTR (lists) and image-net.org (images)",
    needs=("ImageNet_LT_train.txt, _val.txt or _test.txt", "train/n01440764/", "LOC_synset_mapping.txt"),
    find=_find,
    read=_read,
)
