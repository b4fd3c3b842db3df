"""Fields of one image's record, from a line of a table or a sidecar: checked one by one.

A field that cannot be used is a problem of its own; the others count.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from reprlib import Repr
from typing import Any, NamedTuple
from unicodedata import category

from pleinair.tools.retrieval.crossmodal.sparse import words
from pleinair.tools.retrieval.licenses import spdx
from pleinair.tools.types import Box

MAX_CAPTION = 10_000  # characters
MAX_TEXT = 1_000  # characters of license, source and author
MAX_BOXES = 200  # of one image
FILE_KEYS = (
    *("file_name", "filename", "file", "image_file_name", "image_file", "image_filename", "image_path"),
    *("image_name", "image", "img_path", "img", "path", "file_path", "filepath"),
)
CAPTION_KEYS = (
    *("text", "caption", "captions", "prompt", "description", "sentences", "sentence", "title"),
    *("alt_text", "alt", "label", "tags", "keywords"),
)
LICENSE_KEYS = ("license", "licence", "license_url", "usage_terms", "rights")
SOURCE_KEYS = ("source", "source_url", "original_url", "url", "credit", "webpage")
AUTHOR_KEYS = ("author", "authors", "creator", "artist", "photographer", "by", "attribution")
KEYS = frozenset((*FILE_KEYS, *CAPTION_KEYS, *LICENSE_KEYS, *SOURCE_KEYS, *AUTHOR_KEYS, "boxes"))

_Fault = tuple[str, str]  # field, reason
_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60


class Fields(NamedTuple):
    """Usable fields of a record by the names in `Description`, and the faults of the others."""

    values: dict[str, Any]
    faults: list[_Fault]


def read_fields(record: Mapping[str, object]) -> Fields:
    """Read caption, license, source, author and boxes; keys may differ in case, spaces and hyphens."""
    record = {normal_key(key): value for key, value in record.items()}
    faults: list[_Fault] = []
    values: dict[str, Any] = {
        "caption": _first(record, CAPTION_KEYS, MAX_CAPTION, faults),
        "license": spdx(_first(record, LICENSE_KEYS, MAX_TEXT, faults)),
        "source": _first(record, SOURCE_KEYS, MAX_TEXT, faults),
        "author": _first(record, AUTHOR_KEYS, MAX_TEXT, faults),
    }
    try:
        values["boxes"] = _boxes(record.get("boxes"))
    except ValueError as error:
        faults.append(("boxes", str(error)))
    return Fields({name: value for name, value in values.items() if value}, faults)


def file_of(record: Mapping[str, object]) -> str:
    """Return the file that a record names, "" for none."""
    record = {normal_key(key): value for key, value in record.items()}
    for key in FILE_KEYS:
        value = record.get(key)
        if isinstance(value, dict):  # of a data set of Hugging Face: bytes and path
            value = value.get("path")
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def normal_key(key: object) -> str:
    """Return a key in lower case, with `_` for spaces and hyphens."""
    return str(key).strip().lower().replace(" ", "_").replace("-", "_")


def clean(text: str, limit: int = MAX_CAPTION) -> str:
    """Return a text on one line; raise `ValueError` if it is too long or not in Unicode."""
    if len(text) > limit:
        raise ValueError(f"has {len(text):,} characters; accepted: at most {limit:,}")
    if not text.isprintable():
        if any(category(char) == "Cs" for char in text):
            raise ValueError("is not in Unicode")
        text = "".join(" " if category(char) == "Cc" else char for char in text)
    return " ".join(text.split())


def _first(record: Mapping[str, object], keys: tuple[str, ...], limit: int, faults: list[_Fault]) -> str:
    """Return the first of several fields that is usable and not blank."""
    for key in keys:
        try:
            text = _text(record.get(key), limit)
        except ValueError as error:
            faults.append((key, f"`{key}` {error}"))
            continue
        if text:
            if isinstance(record[key], list) and keys is not CAPTION_KEYS:
                faults.append((key, f"`{key}` is a list; read as {_repr.repr(text)}"))
            return text
    return ""


def _text(value: object, limit: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # an empty cell
        return ""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        parts = [clean(part, limit) for part in value[: limit + 1]]
        return clean("; ".join(part for part in parts if part), limit)
    if not isinstance(value, str):
        raise ValueError(f"is {_repr.repr(value)}, not a string")
    return clean(value, limit)


def _boxes(value: object) -> dict[str, Box]:
    """Read boxes by name; refuse a name without a word, or a second one that differs in spelling only."""
    if isinstance(value, str) and value.strip():  # a cell of a table
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"`boxes` is {_repr.repr(value)}, not an object of names") from None
    if not value:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"`boxes` is {_repr.repr(value)}, not an object of names")
    if len(value) > MAX_BOXES:
        raise ValueError(f"`boxes` has {len(value):,} of them; accepted: at most {MAX_BOXES}")
    boxes = {_box_name(name): _box(name, corners) for name, corners in value.items()}
    spellings = Counter(tuple(words(name)) for name in boxes)
    for name in boxes:
        if not words(name) or spellings[tuple(words(name))] > 1:
            fault = "a second box under that name" if words(name) else "a name without a word"
            raise ValueError(f"`boxes`: {_repr.repr(name)} is {fault}")
    return boxes


def _box_name(name: str) -> str:
    try:
        clean(name, MAX_TEXT)
    except ValueError as error:
        raise ValueError(f"`boxes`: the name {ascii(name)[:60]} {error}") from None
    return name


def _box(name: str, value: object) -> Box:
    numbers = list(_numbers(value))
    if len(numbers) == 4:
        x0, y0, x1, y1 = numbers
        if 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1:
            return x0, y0, x1, y1
    accepted = "[x0, y0, x1, y1] with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1"
    raise ValueError(f"the box of {_repr.repr(name)} is {_repr.repr(value)}; accepted: {accepted}")


def _numbers(value: object) -> Iterator[float]:
    """Yield the numbers of a list of four, infinity for whatever is none: it fits into no box."""
    for number in value if isinstance(value, list) and len(value) == 4 else ():
        usable = isinstance(number, int | float) and not isinstance(number, bool) and -1 < number < 2
        yield float(number) if usable else math.inf
