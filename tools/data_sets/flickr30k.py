"""Flickr30K (Young et al. 2014): five captions an image, from the archive's list, Karpathy's or their copies.

Only Karpathy's list has splits (29,000, 1,014 and 1,000 images), and the table that copies it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pleinair.tools.data_sets.coco import KARPATHY, karpathy_images
from pleinair.tools.data_sets.data_set import Contents, Example, Layout
from pleinair.tools.data_sets.lists import only_present
from pleinair.tools.data_sets.place import Faults, Place

_TOKEN = re.compile(r"(\S+\.jpg)#(\d)\t(.+)", re.IGNORECASE)
_RESULT = re.compile(r"(\S+\.jpg)\s*\|\s*(\d)\s*\|?\s*(.+)", re.IGNORECASE)  # one line lacks its second bar
_COMMAS = re.compile(r'(\S+\.jpg),\s*(\d)\s*,\s*"?(.+?)"?', re.IGNORECASE)
_COPIES = {"results.csv": ("image_name|", _RESULT), "captions.txt": ("image_name,comment_number", _COMMAS)}


def _find(place: Place) -> str:
    published = place.find("dataset_flickr30k.json", "flickr_annotations_30k.csv", "results_20130124.token")
    copies = (file for name in _COPIES if (file := place.find(name)) and _is_copy(place, file))
    return published or next(copies, "")


def _is_copy(place: Place, file: str) -> bool:
    return place.head(file).lstrip().startswith(_COPIES[_name(file)][0])


def _name(file: str) -> str:
    return file.rpartition("/")[2].lower()


def _read(place: Place) -> Contents:
    file = _find(place)
    readers = {".json": _karpathy, ".csv": _table, ".token": _tokens}
    reader = _tokens if _name(file) in _COPIES else readers[file[file.rindex(".") :].lower()]
    listed = list(reader(place, file))
    if not listed:
        raise LAYOUT.wrong(f"{file} lists no image with captions")
    root = _root(place, listed)
    listed = [Example(f"{root}/{e.path}".lstrip("/"), "", e.captions, e.split) for e in listed]
    examples, problems = only_present(place, LAYOUT, listed)
    if not any(example.split for example in examples):
        problems += ("no split: dataset_flickr30k.json of caption_datasets.zip is missing",)
    return Contents((), examples, problems)


def _root(place: Place, listed: list[Example]) -> str:
    """Return the folder of the first image that is there, "" for none."""
    files = (file for example in listed if (file := place.find(example.path)))
    return next(files, "").rpartition("/")[0]


def _karpathy(place: Place, file: str) -> Iterator[Example]:
    for image, captions, split in karpathy_images(place, LAYOUT, file):
        yield Example(image["filename"], captions=captions, split=split)


def _table(place: Place, file: str) -> Iterator[Example]:
    """Yield the rows of a table with captions as a JSON list (`raw`), `split` and `filename`."""
    faults = Faults()
    for _, row in place.rows(file):
        try:
            captions = tuple(" ".join(text.split()) for text in json.loads(row["raw"]))
            yield Example(row["filename"], captions=captions, split=KARPATHY[row["split"]])
        except (KeyError, ValueError, TypeError, AttributeError):
            faults.add("rows without captions, a split or a name", row.get("filename"))
    LAYOUT.check(faults, file)


def _tokens(place: Place, file: str) -> Iterator[Example]:
    head, pattern = _COPIES.get(_name(file), ("", _TOKEN))
    captions, faults = dict[str, list[str]](), Faults()
    for number, line in enumerate(place.lines(file), start=1):
        if match := pattern.fullmatch(line):
            text = match[3].replace('""', '"') if pattern is _COMMAS else match[3]
            captions.setdefault(match[1], []).append(" ".join(text.split()))
        elif not head or not line.startswith(head):
            faults.add("lines without an image, a number and a caption", f"line {number}: {line}")
    LAYOUT.check(faults, file)
    for name, texts in captions.items():
        yield Example(name, captions=tuple(texts))


LAYOUT = Layout(
    name="flickr30k",
    title="Flickr30K",
    size="31,783 images (31,014 in Karpathy's list) with 5 captions each, 4.4 GB",
    license="non-commercial research and education only; images under Flickr's terms",
    source="the University of Illinois, on request: shannon.cs.illinois.edu/DenotationGraph; Karpathy's "
    "split: cs.stanford.edu/people/karpathy/deepimagesent",
    needs=("dataset_flickr30k.json or results_20130124.token", "flickr30k-images/"),
    find=_find,
    read=_read,
)
