"""Data set as its publisher lays it out: examples with class names, captions and splits of its lists."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.tools.data_sets.place import Faults, Place

Split = Literal["train", "val", "test", ""]  # "": the data set has none, or keeps the image apart from all
MARK = "data_set.json"  # in the folder of a library that was written from a data set
NO_FACTS: Mapping[str, str] = {}  # one for all examples without facts
_FOLDER_SPLITS: Mapping[str, Split] = {
    **{"train": "train", "training": "train", "test": "test"},
    **{"val": "val", "valid": "val", "validation": "val"},
}


def split_of(folder: str) -> Split:
    """Return the split in the names of folders, the innermost first, such as `train.X1` or `2021_valid`."""
    for name in reversed(folder.lower().split("/")):
        for word in re.split("[^a-z]+", name):
            if word in _FOLDER_SPLITS:
                return _FOLDER_SPLITS[word]
    return ""


@dataclass(frozen=True, slots=True)
class Example:
    """Image of a data set with what its lists say of it."""

    path: str  # below the data set's folder, with "/" between folders
    class_name: str = ""  # readable, as in the data set's list; never a folder's code
    captions: tuple[str, ...] = ()
    split: Split = ""
    # such as artist, license, code of the class
    facts: Mapping[str, str] = field(default_factory=lambda: NO_FACTS, hash=False)


class Contents(NamedTuple):
    """What a layout's reader has read."""

    class_names: tuple[str, ...]
    examples: tuple[Example, ...]
    problems: tuple[str, ...] = ()  # what is left out, with counts


@dataclass(frozen=True, slots=True)
class Layout:
    """Published data set: what it is, where it comes from, and how its folder is read."""

    name: str
    title: str
    size: str  # images and bytes
    license: str
    source: str  # who publishes it, and where
    needs: tuple[str, ...]  # files and folders that it is recognised by
    find: Callable[[Place], str] = field(repr=False)  # path of what it is recognised by, "" for none
    read: Callable[[Place], Contents] = field(repr=False)
    captions: str = ""  # where its captions come from, if not from its own archive
    banner: int = 0  # pixels at the bottom of each image that are no part of it

    def missing(self, file: str, archive: str) -> BadInput:
        """Return the error for a file that is not there; `archive` is what contains it."""
        return BadInput(
            f"{self.title}: `{file}` is missing.",
            f"It is in {archive}, published by {self.source}; size of the data set: {self.size}; license: "
            f"{self.license}.",
        )

    def check(self, faults: Faults, file: str = "") -> None:
        """Raise `wrong` if there are faults, of one list or of several."""
        if texts := str(faults):
            raise self.wrong(f"{file}: {texts}" if file else texts)

    def wrong(self, text: str) -> BadInput:
        """Return the error for lists that contradict themselves or the images."""
        return BadInput(
            f"{self.title}: {text}.", f"Unpack the archives again; they are published by {self.source}."
        )


@dataclass(frozen=True, slots=True)
class DataSet:
    """Data set in a folder. Its examples are in the order of its lists, else of their paths."""

    layout: Layout
    folder: Path
    class_names: tuple[str, ...]  # in the list's order; () where it has none
    examples: tuple[Example, ...]
    problems: tuple[str, ...] = ()  # what is left out, with counts

    def split(self, *names: Split) -> tuple[Example, ...]:
        """Return the examples of some splits."""
        return tuple(example for example in self.examples if example.split in names)

    def classes(self, *splits: Split, limit: int | None = None) -> list[tuple[str, list[Example]]]:
        """Return the first `limit` classes with examples, by name, with these: of some splits, or of all.

        In the list's order; classes of one name, such as ImageNet's two cranes, stay apart by their `code`.
        """
        places = {name: place for place, name in reversed([*enumerate(self.class_names)])}
        by_class: dict[tuple[int, str, str], list[Example]] = defaultdict(list)
        for example in self.split(*splits) if splits else self.examples:
            name = example.class_name
            if name in places:
                by_class[places[name], name, example.facts.get("code", "")].append(example)
        return [(key[1], by_class[key]) for key in sorted(by_class)][:limit]

    def file(self, example: Example) -> Path:
        """Return the file of an example."""
        return self.folder / example.path
