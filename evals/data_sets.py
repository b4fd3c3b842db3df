"""Look at a published data set in a folder: `python -m pleinair.evals data FOLDER`; write a library of it."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.evals.run import show_progress
from pleinair.tools.data_sets.data_set import DataSet, Example
from pleinair.tools.data_sets.library import write_library
from pleinair.tools.data_sets.recognise import LAYOUTS, recognise
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_SHOWN = 8  # classes, and examples
_NO_SPLIT = "none"  # in texts, for ""


def add(commands: Commands) -> None:
    """Add the command `data`."""
    parser = commands.add_parser(
        "data",
        help="show what a data set (ImageNet, CUB, COCO, …) in a folder holds, or write a library of it",
        description="Show the splits, classes, captions and problems of a published data set in a folder, "
        "and write a library with its images, class names, captions and credits.",
    )
    add = parser.add_argument
    add("folder", type=Path, help="folder that the data set's archives were unpacked in")
    add(
        "--layout",
        default="",
        choices=("", *LAYOUTS),
        metavar="NAME",
        help=f"which data set to read if the folder holds several: {', '.join(LAYOUTS)}",
    )
    add(
        "--split",
        nargs="+",
        choices=("train", "val", "test", _NO_SPLIT),
        metavar="SPLIT",
        help="only images of these splits: train, val, test, or none for those in no split",
    )
    add("--classes", type=int, metavar="N", help="only the first N classes of the data set's list")
    add(
        "--library",
        type=Path,
        metavar="FOLDER",
        help="write a library of links to the images; without --split of those to train on, if there are any",
    )
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    data_set = recognise(options.folder, options.layout)
    if options.library and not options.split and data_set.split("train"):
        options.split = ["train"]
    examples = _chosen(data_set, options.split, options.classes)
    if options.json:
        print(json.dumps(_facts_of(data_set, examples), ensure_ascii=False, indent=1))
    else:
        print(*_describe(data_set, examples), sep="\n")
    if options.library:
        folder = write_library(data_set, examples, options.library, _show)
        print(f"library: {folder}")


def _show(done: int, total: int) -> None:
    show_progress(f"{done:,}/{total:,} images")


def _chosen(data_set: DataSet, splits: Sequence[str] | None, classes: int | None) -> tuple[Example, ...]:
    """Return the examples of some splits and of the first classes; raise `BadInput` where there is none."""
    if classes is not None and not 1 <= classes <= len(data_set.class_names):
        raise BadInput(f"--classes {classes}: accepted: 1 to {len(data_set.class_names)}.")
    names = frozenset(data_set.class_names[:classes]) if classes else None
    wanted = None if splits is None else {"" if split == _NO_SPLIT else split for split in splits}
    examples = tuple(
        example
        for example in data_set.examples
        if (wanted is None or example.split in wanted) and (names is None or example.class_name in names)
    )
    if not examples:
        present = ", ".join(_splits(data_set.examples))
        raise BadInput(f"--split {' '.join(splits or ())}: no image; accepted: {present}.")
    return examples


def _splits(examples: Sequence[Example]) -> dict[str, int]:
    return {split or _NO_SPLIT: count for split, count in Counter(each.split for each in examples).items()}


def _facts_of(data_set: DataSet, examples: Sequence[Example]) -> dict[str, Any]:
    """Return what a data set is and holds, for JSON."""
    layout, present = data_set.layout, {each.class_name for each in examples}
    return {
        "layout": layout.name,
        "title": layout.title,
        "folder": str(data_set.folder),
        "license": layout.license,
        "source": layout.source,
        "images": len(examples),
        "splits": _splits(examples),
        "classes": [name for name in data_set.class_names if name in present],
        "captions": sum(len(each.captions) for each in examples),
        "problems": [*data_set.problems],
    }


def _describe(data_set: DataSet, examples: Sequence[Example]) -> Iterator[str]:
    """Yield lines about a data set: what it is, splits, classes, captions, examples, problems."""
    layout, facts = data_set.layout, _facts_of(data_set, examples)
    yield f"{layout.title} ({layout.name}) in {data_set.folder}; the complete data set: {layout.size}"
    yield f"license: {layout.license}; published by {layout.source}"
    yield f"splits: {', '.join(f'{split} {count:,}' for split, count in facts['splits'].items())}"
    classes = facts["classes"]
    more = ", …" if len(classes) > _SHOWN else ""
    yield f"classes: {len(classes):,}{': ' if classes else ''}{', '.join(classes[:_SHOWN])}{more}"
    yield f"captions: {facts['captions']:,}" + (
        f"; they are in {layout.captions}" if layout.captions and not facts["captions"] else ""
    )
    if layout.banner:
        yield f"banner: the lowest {layout.banner} pixels of each image; a library is written without them"
    for example in examples[:: max(1, len(examples) // _SHOWN)][:_SHOWN]:
        texts = [example.class_name, *example.captions[:1]]
        yield f"    {example.path}  {example.split or _NO_SPLIT}  {' | '.join(filter(None, texts))}"
    for problem in data_set.problems:
        yield f"problem: {problem}"
