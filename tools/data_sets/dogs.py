"""Stanford Dogs (Khosla et al. 2011): class folders with a synset before the breed, and lists of splits.

Without the lists the images are in the split that folders above the breeds' are named by, if any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pleinair.tools.data_sets.data_set import Contents, Example, Layout, Split, split_of
from pleinair.tools.data_sets.lists import only_present
from pleinair.tools.data_sets.place import Faults, Place, readable

_BREED = r"n\d{8}-.+"
_LISTS: tuple[tuple[str, Split], ...] = (("train_list.mat", "train"), ("test_list.mat", "test"))


def _find(place: Place) -> str:
    parents = (f"{below}{names[0]}/" for below, names in place.parents(_BREED).items())
    return next(parents, "") or place.find(*(file for file, _ in _LISTS))


def _read(place: Place) -> Contents:
    parents = {
        below: names for below, names in place.parents(_BREED).items() if "annotation" not in below.lower()
    }
    if not parents:
        raise LAYOUT.missing("Images/n02085620-Chihuahua/", "images.tar (757 MB)")
    folders = sorted({folder for of_parent in parents.values() for folder in of_parent})
    names = {folder: readable(folder.partition("-")[2]) for folder in folders}
    lists = [(file, split) for name, split in _LISTS if (file := place.find(name))]
    if not lists:
        examples = tuple(
            Example(path, names[folder], split=split_of(below), facts=_facts(folder))
            for below, of_parent in parents.items()
            for folder in of_parent
            for path in place.images(f"{below}{folder}/")
        )
        note = "no split: train_list.mat and test_list.mat of lists.tar are missing"
        return Contents(tuple(names.values()), examples, () if any(e.split for e in examples) else (note,))
    root = min(parents, key=lambda below: split_of(below) != "")  # not one that is divided already
    listed = [each for file, split in lists for each in _of_list(place, root, file, split, names)]
    return Contents(tuple(names.values()), *only_present(place, LAYOUT, listed))


def _of_list(place: Place, root: str, file: str, split: Split, names: dict[str, str]) -> Iterator[Example]:
    variables, faults = place.mat(file), Faults()
    paths = variables.get("file_list")
    if paths is None:
        raise LAYOUT.wrong(f"{file} has no `file_list`")
    for path in map(str, paths.reshape(-1)):
        folder = path.partition("/")[0]
        if not re.fullmatch(_BREED, folder) or folder not in names:
            faults.add(f"images in {file} of a breed without a folder", path)
        else:
            yield Example(f"{root}{path}", names[folder], split=split, facts=_facts(folder))
    LAYOUT.check(faults)


def _facts(folder: str) -> dict[str, str]:
    return {"code": folder.partition("-")[0]}


LAYOUT = Layout(
    name="dogs",
    title="Stanford Dogs",
    size="20,580 images of 120 breeds, 757 MB",
    license="non-commercial research and education only (images of ImageNet)",
    source="Stanford's vision lab, vision.stanford.edu/aditya86/ImageNetDogs",
    needs=("Images/n02085620-Chihuahua/", "train_list.mat and test_list.mat of lists.tar"),
    find=_find,
    read=_read,
)
