"""Readers of tables that name images: `metadata.jsonl`, `.json`, `.csv` and `.tsv`.

A table lies in the library's folder or in any below it and describes the images from there; it may also be
called `captions` or `meta_cap`. Each line counts by itself: one that cannot be used is reported and ignored.
Not covered: tar shards, images inside a table, data sets by name.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pleinair.tools.retrieval.readers.folder import BadName, Description, Folder, Problem
from pleinair.tools.retrieval.readers.records import (
    CAPTION_KEYS,
    FILE_KEYS,
    KEYS,
    describe,
    file_of,
    join_captions,
    load_json,
    normal_key,
)
from pleinair.tools.retrieval.readers.texts import decode

MAX_LINE = 2**20  # characters of one record
STEMS = ("metadata", "captions", "meta_cap")
_MAX_WASTE = 64 * 2**20  # characters of a JSON text that are read in vain, after which the rest is not read
_LISTS = ("images", "data", "items", "records", "samples", "rows")  # keys of a list of records
_SPACE = re.compile(r"[\s,\[\]]*")
_FILE_LIKE = re.compile(r"\S.*\.\w{2,5}(?:#\d+)?")
_NUMBER = re.compile(r"(?<=\.\w{3})#\d+$")  # of the captions of one image, as in Flickr8k's list
_EXCEL = re.compile(r"\Asep=.\r?$", re.IGNORECASE | re.MULTILINE)  # tells the delimiter to Excel

_Record = Mapping[str, object] | str  # of one image, or what is wrong with it
Row = tuple[int | None, _Record]  # with the line where it begins


class Table:
    """Reader of the tables with one ending."""

    rank = 10
    suffix = ""

    def read(self, folder: Folder) -> Iterator[Description]:
        """Yield what the tables contain about images, those nearest to the images first."""
        names = {f"{stem}{self.suffix}" for stem in STEMS}
        files = [file for file in folder.files if os.path.basename(file).lower() in names]
        for file in sorted(files, key=lambda file: (-file.count("/"), file)):
            yield from self.read_table(folder, file)

    def read_table(self, folder: Folder, file: str) -> list[Description]:
        """Return what a table says of images; captions in several rows of one image become lines."""
        data = folder.read(file)
        described: dict[str, Description] = {}
        further: list[Description] = []
        for line, record in self._rows(data) if data is not None else ():
            try:
                if isinstance(record, str):
                    raise BadName(record)
                image = _image_of(folder, file, record)
            except BadName as error:
                folder.report(Problem(file, str(error), line))
                continue
            description = describe(folder, file, image, record, line)
            first = described.setdefault(image, description)
            if description.caption and first is not description:
                caption = join_captions((first.caption, description.caption))
                described[image] = replace(first, caption=caption)
            if first is not description:
                further.append(description)
        return [*described.values(), *further]

    def _rows(self, data: bytes) -> Iterator[Row]:
        raise NotImplementedError


class JsonLines(Table):
    """Reader of `metadata.jsonl`: an object a line, or else one JSON array, or objects over several lines."""

    rank = 10
    suffix = ".jsonl"

    def _rows(self, data: bytes) -> Iterator[Row]:
        text = decode(data)
        if _spans_lines(text):
            yield from _values(text)
            return
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, _record(load_json(line) if len(line) <= MAX_LINE else None, len(line))


class JsonTable(Table):
    """Reader of `metadata.json`: a list of records, or an object of file names or with a list of records."""

    rank = 11
    suffix = ".json"

    def _rows(self, data: bytes) -> Iterator[Row]:
        text = decode(data)
        value = load_json(text) if text.lstrip().startswith("{") else None
        return _rows_of_object(value) if isinstance(value, dict) else _values(text)


class Csv(Table):
    """Reader of `metadata.csv`, with commas, semicolons, tabs or bars between cells."""

    rank = 12
    suffix = ".csv"
    delimiters = ",;\t|"

    def _rows(self, data: bytes) -> Iterator[Row]:
        text = _EXCEL.sub("", decode(data))
        first = next((line for line in text.split("\n") if line.strip()), "")
        delimiter = max(self.delimiters, key=lambda sign: _recognized(_cells(first, sign)))
        cells = _numbered(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        columns = [normal_key(cell) for cell in _cells(first, delimiter)]
        files = [bool(_FILE_LIKE.fullmatch(cell)) for cell in columns[:2]]
        if not set(columns) & set(FILE_KEYS) and len(files) == 2 and any(files):  # a table without a head
            columns = ["file_name", "text"] if files[0] else ["text", "file_name"]
        else:
            next((row for _, row in cells if row), None)
            yield from missing_columns(columns)
        if set(columns) & set(FILE_KEYS):
            yield from (_row_of_cells(line, row, columns, delimiter) for line, row in cells if row)


class Tsv(Csv):
    """Reader of `metadata.tsv`."""

    rank = 13
    suffix = ".tsv"
    delimiters = "\t,;|"


def _image_of(folder: Folder, file: str, record: Mapping[str, object]) -> str:
    """Return the image that a table's record describes; raise `BadName` if it is none of the folder."""
    if name := _NUMBER.sub("", file_of(record)):
        return folder.find(name, os.path.dirname(file))
    raise BadName(f"no file name; it is under a key such as `{FILE_KEYS[0]}` or `{FILE_KEYS[-1]}`")


def _record(value: object, size: int = 0) -> _Record:
    if size > MAX_LINE:
        return f"has {size:,} characters; accepted: at most {MAX_LINE:,}"
    return value if isinstance(value, dict) else "not a JSON object"


def _spans_lines(text: str) -> bool:
    """Return whether a text is an array, or begins with an object over several lines."""
    first, _, rest = text.strip().partition("\n")
    if first.startswith("["):
        return not rest or load_json(first) is None
    if first.startswith("{") and load_json(first) is None:
        with suppress(ValueError, RecursionError):
            json.JSONDecoder().raw_decode(text.lstrip())
            return True
    return False


def _values(text: str) -> Iterator[Row]:
    """Yield the values of an array, or those written one after another; what is no JSON costs a line."""
    decoder, waste = json.JSONDecoder(), 0  # characters behind the line of a fault, which are read again
    position, line = 0, 1
    while waste < _MAX_WASTE:
        start = _SPACE.match(text, position).end()  # type: ignore[union-attr]  # it also matches nothing
        line += text.count("\n", position, start)
        if start == len(text):
            return
        try:
            value, position = decoder.raw_decode(text, start)
            yield line, _record(value, position - start)
        except (ValueError, RecursionError) as error:
            end = text.find("\n", start)
            position = end if end >= 0 else len(text)
            waste += max(0, getattr(error, "pos", len(text)) - position)
            yield line, "not JSON" if waste < _MAX_WASTE else "not JSON; the rest is not read"
        line += text.count("\n", start, position)


def _rows_of_object(value: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the records of an object: of COCO, with a list of records, of one image, or of file names."""
    lists = [value[key] for key in _LISTS if isinstance(value.get(key), list)]
    if lists:
        yield from _rows_of_list(lists[0], value)
    elif file_of(value) or set(map(normal_key, value)) & KEYS:
        yield None, value
    else:
        for name, entry in value.items():
            fields = entry if isinstance(entry, dict) else {"text": entry}
            yield None, {**fields, "file_name": name}


def _rows_of_list(records: Sequence[Any], value: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the records of a list, with the captions and licenses that belong to them by the ids of COCO."""
    captions: dict[object, list[object]] = {}
    for note in _objects(value.get("annotations")):
        if "caption" in note:
            captions.setdefault(str(note.get("image_id")), []).append(note["caption"])
    licenses = {str(license.get("id")): license for license in _objects(value.get("licenses"))}
    for record in records:
        if isinstance(record, dict):
            extra: dict[str, object] = {"captions": captions.get(str(record.get("id")))}
            extra |= {"license": licenses.get(str(record.get("license")))}
            record |= {key: value for key, value in extra.items() if value}
        yield None, _record(record)


def _objects(value: object) -> list[dict[str, object]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _recognized(cells: Sequence[str]) -> tuple[int, bool, int]:
    """Return how many columns of a table's head have a meaning, if one is a file, and how many there are."""
    is_file = any(map(_FILE_LIKE.fullmatch, cells[:2]))
    return len({normal_key(cell) for cell in cells} & KEYS), is_file, len(cells)


def _numbered(cells: Iterator[list[str]]) -> Iterator[tuple[int, list[str] | str]]:
    """Yield a table's rows with the lines where they begin; for one that cannot be read, the reason."""
    line = 0
    while True:
        try:
            row: list[str] | str = next(cells)
        except StopIteration:
            return
        except csv.Error as error:
            row = str(error)
        yield line + 1, row
        line = cells.line_num  # type: ignore[attr-defined]


def _row_of_cells(line: int, row: list[str] | str, columns: Sequence[str], delimiter: str) -> Row:
    if isinstance(row, str):
        return line, row
    surplus = row[len(columns) - 1 :]
    if len(row) > len(columns) and columns[-1] in CAPTION_KEYS:  # a comma in a caption without quotes
        row = [*row[: len(columns) - 1], delimiter.join(surplus)]
    if len(row) > len(columns):
        return line, f"{len(row)} cells in {len(columns)} columns"
    return line, dict(zip(columns, row, strict=False))


def missing_columns(columns: Sequence[str]) -> Iterator[Row]:
    """Yield what is wrong with a table without a column for files, or with none for captions but others."""
    what, keys = ("caption", CAPTION_KEYS) if set(columns) & set(FILE_KEYS) else ("file name", FILE_KEYS)
    is_complete = what == "caption" and set(columns) <= KEYS  # a table of credits only
    if not is_complete and not set(columns) & set(keys):
        present = ", ".join(columns)[:200]
        yield (1, f"no column for a {what} among {present}; accepted: {', '.join(keys)}")
