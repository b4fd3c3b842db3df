"""Readers of tables that name images: `metadata.jsonl`, `.json`, `.csv`, `.tsv` and `.parquet`.

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
from itertools import count
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from pleinair.tools.retrieval.readers.folder import MAX_FILE, BadName, Description, Folder, Problem
from pleinair.tools.retrieval.readers.records import (
    CAPTION_KEYS,
    FILE_KEYS,
    KEYS,
    file_of,
    normal_key,
    read_fields,
)
from pleinair.tools.retrieval.readers.texts import decode

MAX_LINE = 2**20  # characters of a line, or of one record
STEMS = ("metadata", "captions", "meta_cap")
_MAX_ROWS = 10_000_000  # of a Parquet file, where equal ones take no space
_MAX_FAULTS = 100  # of one JSON text, after which the rest is not read
_LISTS = ("images", "data", "items", "records", "samples", "rows")  # keys of a list of records
_SPACE = re.compile(r"[\s,\[\]]*")
_FILE_LIKE = re.compile(r"\S.*\.\w{2,5}")


class _Row(NamedTuple):
    """Record of one image with the line where it begins, or what is wrong there."""

    line: int | None
    record: Mapping[str, object] | None = None
    fault: str = ""


class _Table:
    """Reader of the tables with one ending."""

    rank = 10
    suffix = ""

    def read(self, folder: Folder) -> Iterator[Description]:
        """Yield what the tables contain about images, those nearest to the images first."""
        names = {f"{stem}{self.suffix}" for stem in STEMS}
        files = [file for file in folder.files if os.path.basename(file).lower() in names]
        for file in sorted(files, key=lambda file: (-file.count("/"), file)):
            yield from self._read_table(folder, file)

    def _read_table(self, folder: Folder, file: str) -> Iterator[Description]:
        data = folder.read(file)
        described: set[str] = set()
        for row in self._rows(data) if data is not None else ():
            try:
                yield _describe(folder, file, row, described)
            except BadName as error:
                folder.report(Problem(file, str(error), row.line))

    def _rows(self, data: bytes) -> Iterator[_Row]:
        raise NotImplementedError


class JsonLines(_Table):
    """Reader of `metadata.jsonl`: an object a line, or else one JSON array, or objects over several lines."""

    rank = 10
    suffix = ".jsonl"

    def _rows(self, data: bytes) -> Iterator[_Row]:
        text = decode(data)
        if _spans_lines(text):
            yield from _values(text)
            return
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _row(number, _loaded(line) if len(line) <= MAX_LINE else None, len(line))


class JsonTable(_Table):
    """Reader of `metadata.json`: a list of records, or an object of file names or with a list of records."""

    rank = 11
    suffix = ".json"

    def _rows(self, data: bytes) -> Iterator[_Row]:
        text = decode(data)
        value = _loaded(text) if text.lstrip().startswith("{") else None
        return _rows_of_object(value) if isinstance(value, dict) else _values(text)


class Csv(_Table):
    """Reader of `metadata.csv`, with commas, semicolons, tabs or bars between cells."""

    rank = 12
    suffix = ".csv"
    delimiters = ",;\t|"

    def _rows(self, data: bytes) -> Iterator[_Row]:
        text = decode(data)
        first = next((line for line in text.split("\n") if line.strip()), "")
        delimiter = max(self.delimiters, key=lambda sign: _recognized(_cells(first, sign)))
        cells = _numbered(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        columns = [normal_key(cell) for cell in _cells(first, delimiter)]
        if not set(columns) & set(FILE_KEYS) and len(columns) > 1 and _FILE_LIKE.fullmatch(columns[0]):
            columns = ["file_name", "text"]  # a table without a head
        else:
            next((row for _, row in cells if row), None)
            yield from _missing_columns(columns)
        if set(columns) & set(FILE_KEYS):
            yield from (_row_of_cells(line, row, columns, delimiter) for line, row in cells if row)


class Tsv(Csv):
    """Reader of `metadata.tsv`."""

    rank = 13
    suffix = ".tsv"
    delimiters = "\t,;|"


class Parquet(_Table):
    """Reader of `metadata.parquet`; needs the extra `parquet`. A problem's line is the number of a row."""

    rank = 14
    suffix = ".parquet"

    def _rows(self, data: bytes) -> Iterator[_Row]:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError:
            yield _Row(None, fault="needs the extra `parquet`: pip install 'pleinair[parquet]'")
            return
        number = count(1)
        try:
            file = ParquetFile(io.BytesIO(data))
            names = file.schema_arrow.names
            usable = [
                f"{name}.path" if _is_struct(file, name) else name
                for name in names
                if normal_key(name) in KEYS
            ]
            yield from _missing_columns([normal_key(name) for name in names])
            if file.metadata.num_rows > _MAX_ROWS or _largest_group(file, usable) > MAX_FILE:
                yield _Row(None, fault=f"over {_MAX_ROWS:,} rows, or {MAX_FILE:,} bytes in a row group")
                return
            for batch in file.iter_batches(256, columns=usable):
                yield from (_Row(next(number), record) for record in batch.to_pylist())
        except (ArrowException, OSError, ValueError, RecursionError):
            yield _Row(next(number), fault="not a table that can be read")


def _largest_group(file: Any, columns: Sequence[str]) -> int:
    """Return the bytes of columns in the largest row group of a Parquet file, without its compression."""
    groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
    beginnings = tuple(f"{name}." for name in columns)
    return max(
        (
            sum(
                chunk.total_uncompressed_size
                for chunk in map(group.column, range(group.num_columns))
                if f"{chunk.path_in_schema}.".startswith(beginnings)
            )
            for group in groups
        ),
        default=0,
    )


def _describe(folder: Folder, file: str, row: _Row, described: set[str]) -> Description:
    """Return what a row says of an image; report the fields that cannot be used."""
    if row.record is None:
        raise BadName(row.fault)
    name = file_of(row.record)
    if not name:
        raise BadName(f"no file name; it is under a key such as `{FILE_KEYS[0]}` or `{FILE_KEYS[-1]}`")
    below = str(PurePosixPath(file).parent)
    image = folder.find(name, "" if below == "." else below)
    if image in described:
        raise BadName(f"a second line for `{image}`")
    described.add(image)
    fields = read_fields(row.record)
    for field, reason in fields.faults:
        folder.report(Problem(file, reason, row.line, field))
    return Description(image, **fields.values)


def _row(line: int | None, value: object, size: int = 0) -> _Row:
    if size > MAX_LINE:
        return _Row(line, fault=f"has {size:,} characters; accepted: at most {MAX_LINE:,}")
    return _Row(line, value) if isinstance(value, dict) else _Row(line, fault="not a JSON object")


def _loaded(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _spans_lines(text: str) -> bool:
    """Return whether a text is an array, or begins with an object over several lines."""
    first, _, rest = text.strip().partition("\n")
    if first.startswith("["):
        return not rest or _loaded(first) is None
    if not first.startswith("{") or _loaded(first) is not None:
        return False
    try:
        json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    return True


def _values(text: str) -> Iterator[_Row]:
    """Yield the values of an array, or those written one after another; what is no JSON costs a line."""
    decoder, faults = json.JSONDecoder(), 0
    position, line = 0, 1
    while True:
        start = _SPACE.match(text, position).end()  # type: ignore[union-attr]  # it also matches nothing
        line += text.count("\n", position, start)
        if start == len(text):
            return
        try:
            value, position = decoder.raw_decode(text, start)
            yield _row(line, value, position - start)
        except (ValueError, RecursionError):
            faults += 1
            position = text.find("\n", start)
            last = position < 0 or faults == _MAX_FAULTS
            yield _Row(line, fault="not JSON" + ("; the rest is not read" if last and position >= 0 else ""))
            if last:
                return
        line += text.count("\n", start, position)


def _rows_of_object(value: Mapping[str, object]) -> Iterator[_Row]:
    """Yield the records of an object: of COCO, with a list of records, of one image, or of file names."""
    lists = [value[key] for key in _LISTS if isinstance(value.get(key), list)]
    if lists:
        yield from _rows_of_list(lists[0], value.get("annotations"))
    elif file_of(value):
        yield _Row(None, value)
    else:
        for name, entry in value.items():
            yield _Row(
                None,
                {**entry, "file_name": name}
                if isinstance(entry, dict)
                else {"file_name": name, "text": entry},
            )


def _rows_of_list(records: object, annotations: object) -> Iterator[_Row]:
    """Yield the records of a list; captions in a list of annotations belong to them by COCO's `image_id`."""
    captions: dict[object, list[object]] = {}
    for note in annotations if isinstance(annotations, list) else ():
        if isinstance(note, dict) and isinstance(note.get("image_id"), int | str) and "caption" in note:
            captions.setdefault(note["image_id"], []).append(note["caption"])
    for record in records if isinstance(records, list) else ():
        key = record.get("id") if isinstance(record, dict) else None
        extra = captions.get(key) if isinstance(key, int | str) else None
        yield _row(None, {**record, "captions": extra} if extra else record)


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _recognized(cells: Sequence[str]) -> tuple[int, int]:
    """Return how many columns of a table's head have a meaning, and how many there are."""
    return len({normal_key(cell) for cell in cells} & KEYS), len(cells)


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


def _row_of_cells(line: int, row: list[str] | str, columns: Sequence[str], delimiter: str) -> _Row:
    if isinstance(row, str):
        return _Row(line, fault=row)
    surplus = row[len(columns) - 1 :]
    if len(row) > len(columns) and columns[-1] in CAPTION_KEYS:  # a comma in a caption without quotes
        row = [*row[: len(columns) - 1], delimiter.join(surplus)]
    if len(row) > len(columns):
        return _Row(line, fault=f"{len(row)} cells in {len(columns)} columns")
    return _Row(line, dict(zip(columns, row, strict=False)))


def _missing_columns(columns: Sequence[str]) -> Iterator[_Row]:
    """Yield what is wrong with a table without a column for files, or with none for captions but others."""
    what, keys = ("caption", CAPTION_KEYS) if set(columns) & set(FILE_KEYS) else ("file name", FILE_KEYS)
    is_complete = what == "caption" and set(columns) <= KEYS  # a table of credits only
    if not is_complete and not set(columns) & set(keys):
        present = ", ".join(columns)[:200]
        yield _Row(1, fault=f"no column for a {what} among {present}; accepted: {', '.join(keys)}")


def _is_struct(file: object, name: str) -> bool:
    """Return whether a column holds images as structs of bytes and path, as data sets of Hugging Face do."""
    kind = file.schema_arrow.field(name).type  # type: ignore[attr-defined]
    return hasattr(kind, "get_field_index") and kind.get_field_index("path") >= 0
