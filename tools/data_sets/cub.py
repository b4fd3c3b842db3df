"""Caltech-UCSD Birds 200-2011 (Wah et al. 2011), with the captions of Reed et al. (2016) if they are there.

Not covered: boxes, parts and attributes.
"""

from __future__ import annotations

import os

from pleinair.tools.data_sets.data_set import Contents, Example, Layout
from pleinair.tools.data_sets.lists import numbered, only_present
from pleinair.tools.data_sets.place import Faults, Place, readable

_ARCHIVE = "CUB_200_2011.tgz (1.1 GB)"
_FOLDER = r"\d{3}\.[A-Z].*"
_LISTS = ("images.txt", "classes.txt", "image_class_labels.txt", "train_test_split.txt")


def _find(place: Place) -> str:
    folders = (below for below in place.parents(_FOLDER) if below.lower().endswith("images/"))
    return place.find("image_class_labels.txt", "train_test_split.txt") or next(folders, "")


def _read(place: Place) -> Contents:
    above = (place.find("image_class_labels.txt") or place.find("images.txt")).rpartition("/")[0]
    files = [place.find(f"{above}/{name}" if above else name) for name in _LISTS]
    for name, file in zip(_LISTS, files, strict=True):
        if not file:
            raise LAYOUT.missing(name, _ARCHIVE)
    paths, folders, labels, train = (numbered(place, LAYOUT, file) for file in files)
    names = {number: readable(folder.partition(".")[2] or folder) for number, folder in folders.items()}
    _check(paths, names, labels, train)
    root = f"{files[0].rpartition('/')[0]}/images/".lstrip("/")
    captions, problems = _captions(place, list(paths.values()))
    listed = (
        Example(
            f"{root}{path}",
            names[int(labels[number])],
            captions.get(path, ()),
            "train" if train[number] == "1" else "test",
        )
        for number, path in paths.items()
    )
    examples, missing = only_present(place, LAYOUT, listed)
    return Contents(tuple(names.values()), examples, (*missing, *problems))


def _check(
    paths: dict[int, str], names: dict[int, str], labels: dict[int, str], train: dict[int, str]
) -> None:
    """Raise `BadInput` where the lists contradict one another."""
    faults = Faults()
    for number, path in paths.items():
        label = labels.get(number, "none")
        if not label.isdecimal() or int(label) not in names:
            faults.add(f"labels in image_class_labels.txt that are not in classes.txt ({len(names)})", label)
        if train.get(number) not in ("0", "1"):
            faults.add("images without 0 or 1 in train_test_split.txt", path)
    for number in labels.keys() - paths.keys():
        faults.add("images in image_class_labels.txt that are not in images.txt", number)
    LAYOUT.check(faults)


def _captions(place: Place, paths: list[str]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Return the captions by the images' paths, one a line of the file of the same name."""
    root = _caption_folder(place)
    if root is None:
        return {}, ()
    captions, faults = dict[str, tuple[str, ...]](), Faults()
    for path in paths:
        file = f"{root}{os.path.splitext(path)[0]}.txt"
        texts = tuple(place.lines(file)) if os.path.isfile(place.folder / file) else ()
        if texts:
            captions[path] = texts
        else:
            faults.add(f"images without captions in {root}", path)
    return captions, faults.texts()


def _caption_folder(place: Place) -> str | None:
    """Return the folder of class folders of captions, None for none."""
    for below, names in place.parents(_FOLDER).items():
        if any(file.endswith(".txt") for file in os.listdir(place.folder / below / names[0])):
            return below
    return None


LAYOUT = Layout(
    name="cub",
    title="CUB-200-2011",
    size="11,788 images of 200 birds, 1.1 GB",
    license="non-commercial research and education only",
    source="Caltech's vision group, vision.caltech.edu",
    needs=(*_LISTS, "images/001.Black_footed_Albatross/"),
    find=_find,
    read=_read,
    captions="text_c10 of cvpr2016_cub.tar.gz: 10 an image (Reed et al. 2016, github.com/reedscot/cvpr2016)",
)
