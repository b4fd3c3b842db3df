"""WikiArt (Tan et al. 2019): paintings in folders of their styles, with artist and title.

A table with title, artist and file name is read if there is one; else both are read from the file's name
(`claude-monet_water-lilies-1916.jpg`). The caption is the query of Cross-modal RAG's experiment, "<title>
in the style of <artist>". The class is the style. Not covered: Parquet tables with the images inside.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from pleinair.tools.data_sets.data_set import Contents, Example, Layout, Split
from pleinair.tools.data_sets.lists import only_present
from pleinair.tools.data_sets.place import Faults, Place, readable

_STYLES = (
    "Abstract_Expressionism|Action_painting|Analytical_Cubism|Art_Nouveau(?:_Modern)?|Baroque|Color_Field_Painting|"
    "Contemporary_Realism|Cubism|Early_Renaissance|Expressionism|Fauvism|High_Renaissance|Impressionism|"
    "Mannerism_Late_Renaissance|Minimalism|Naive_Art_Primitivism|New_Realism|Northern_Renaissance|Pointillism|"
    "Pop_Art|Post_Impressionism|Realism|Rococo|Romanticism|Symbolism|Synthetic_Cubism|Ukiyo_e"
)
_LEAST_STYLES = 2  # folders of styles by which the data set is recognised
_KAGGLES = "classes.csv"
_TABLES = ("metadata.csv", "wikiart.csv", _KAGGLES)
_COLUMNS = {  # by what they mean
    "file": ("filename", "file_name", "file", "path", "image"),
    "title": ("title", "description"),
    "artist": ("artistname", "artist"),
    "split": ("split", "subset"),
}
_LISTS: tuple[tuple[str, Split], ...] = (("style_train.csv", "train"), ("style_val.csv", "val"))
_SPLITS: Mapping[str, Split] = {"train": "train", "val": "val", "validation": "val", "test": "test"}
_YEAR = re.compile(r"\s+(?:1[0-9]|20)\d{2}(?:\s+\d)?$")


def _find(place: Place) -> str:
    styles = place.parents(_STYLES).items()
    parents = (f"{below}{names[0]}/" for below, names in styles if len(names) >= _LEAST_STYLES)
    lists = place.find(*(name for name, _ in _LISTS))
    return next(parents, "") or lists or _table(place)


def _table(place: Place) -> str:
    """Return the table with the artist's name and the title, "" for none."""
    for name in _TABLES:
        if file := place.find(name):
            head = {cell.strip().lower() for cell in place.head(file).split(",")}
            if all(head & {*_COLUMNS[key]} for key in ("file", "title", "artist")) and "artistname" in head:
                return file
            if name == _KAGGLES and {"filename", "artist", "description"} <= head:
                return file
    return ""


def _read(place: Place) -> Contents:
    if file := _table(place):
        listed = list(_of_table(place, file))
    elif lists := [(file, split) for name, split in _LISTS if (file := place.find(name))]:
        listed = [each for file, split in lists for each in _of_list(place, file, split)]
    else:
        folders = ((below, name) for below, names in place.parents(_STYLES).items() for name in names)
        listed = [_of_name(path) for below, name in folders for path in place.images(f"{below}{name}/")]
    examples, problems = only_present(place, LAYOUT, listed)
    return Contents(tuple(sorted({each.class_name for each in examples} - {""})), examples, problems)


def _of_list(place: Place, file: str, split: Split) -> Iterator[Example]:
    root = _root(place)
    for line in place.lines(file):
        yield _of_name(f"{root}{line.rpartition(',')[0]}", split)


def _root(place: Place) -> str:
    """Return the folder of the styles' folders, else of the images of a table."""
    return next(iter(place.parents(_STYLES)), "")


def _of_name(path: str, split: Split = "") -> Example:
    """Return an image with the artist and title of its file's name."""
    artist, _, title = os.path.splitext(os.path.basename(path))[0].partition("_")
    artist, title = artist.replace("-", " ").title(), title.replace("-", " ").replace("_", " ")
    return _example(path, artist, _YEAR.sub("", title), split)


def _example(path: str, artist: str, title: str, split: Split) -> Example:
    style = os.path.dirname(path).rpartition("/")[2]
    style = readable(style) if re.fullmatch(_STYLES, style) else ""
    facts = {"artist": artist, "title": title, "style": style}
    captions = (f"{title} in the style of {artist}",) if artist and title else ()
    return Example(path, style, captions, split, {key: text for key, text in facts.items() if text})


def _of_table(place: Place, file: str) -> Iterator[Example]:
    """Yield the rows of a table; those without artist and title count by the file's name."""
    root, faults = _root(place) or f"{file.rpartition('/')[0]}/".lstrip("/"), Faults()
    for number, row in place.rows(file):
        cells = {column.lower(): cell for column, cell in row.items()}
        name, title, artist, split = (
            next((cells[column] for column in columns if cells.get(column)), "")
            for columns in _COLUMNS.values()
        )
        if not name:
            faults.add("rows without a file name", f"line {number}")
        elif "artistname" in cells and title and artist:
            yield _example(f"{root}{name}", artist, title, _SPLITS.get(split.lower(), ""))
        else:
            yield _of_name(f"{root}{name}", _SPLITS.get(split.lower(), ""))
    LAYOUT.check(faults, file)


LAYOUT = Layout(
    name="wikiart",
    title="WikiArt",
    size="81,444 paintings in 27 styles, 25 GB",
    license="non-commercial research only, under WikiArt.org's terms of use",
    source="the ArtGAN project, github.com/cs-chan/ArtGAN",
    needs=(
        "folders of styles such as Impressionism/, or a metadata.csv with title, artistName and file_name",
    ),
    find=_find,
    read=_read,
)
