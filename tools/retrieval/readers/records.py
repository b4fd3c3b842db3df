"""Fields of one image's record, from a line of a table or a sidecar: checked one by one.

A field that cannot be used is a problem of its own; the others count.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from html import unescape
from reprlib import Repr
from typing import Any
from unicodedata import category

from pleinair.tools.images.crops import is_box
from pleinair.tools.retrieval.crossmodal.sparse import words
from pleinair.tools.retrieval.licenses import spdx
from pleinair.tools.retrieval.readers.folder import Description, Folder, Problem
from pleinair.tools.types import Box

MAX_CAPTION = 10_000  # characters
MAX_TEXT = 1_000  # characters of license, source and author
MAX_BOXES = 200  # of one image
MAX_TAGS = 100
FILE_KEYS = (
    *("file_name", "filename", "file", "image_file_name", "image_file", "image_filename", "image_path"),
    *("image_name", "image", "img_path", "img", "path", "file_path", "filepath", "image_id"),
)
CAPTION_KEYS = (
    *("text", "caption", "captions", "prompt", "description", "sentences", "sentence", "title"),
    *("conversations", "comment", "content", "alt_text", "alt", "label", "tags", "tag_string", "keywords"),
)
LICENSE_KEYS = ("license", "licence", "license_url", "usage_terms", "rights")
SOURCE_KEYS = (
    *("source", "source_url", "original_url", "webpage_url", "flickr_url", "url", "coco_url", "credit"),
    "webpage",
)
AUTHOR_KEYS = (
    *("author", "authors", "creator", "artist", "photographer", "by", "attribution", "uploader"),
    "user",
)
TAG_KEYS = ("tags", "tag_string", "keywords")
_LINES = frozenset(CAPTION_KEYS) - {"label", *TAG_KEYS}  # a list of them: captions
KEYS = frozenset((*FILE_KEYS, *CAPTION_KEYS, *LICENSE_KEYS, *SOURCE_KEYS, *AUTHOR_KEYS, "boxes"))

REPLACEMENT = "\ufffd"  # for bytes that are no text
_NAMES = ("name", "username", "nick")  # of a person in an object
_TAGS = re.compile(
    r"</?(?:a|b|i|u|p|br|em|strong|span|div|ul|ol|li|img|h\d|sub|sup|small)\b[^<>]*>", re.IGNORECASE
)
_Fault = tuple[str, str]  # field, reason
_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60


def describe(
    folder: Folder, file: str, image: str, record: Mapping[str, object], line: int | None = None
) -> Description:
    """Return what a record says of an image; report its fields that cannot be used, with file and line.

    Keys may differ in case, spaces and hyphens.
    """
    record = {normal_key(key): value for key, value in record.items()}
    faults: list[_Fault] = []
    values: dict[str, Any] = {
        "caption": join_captions(
            map(_without_tags, _first(record, CAPTION_KEYS, MAX_CAPTION, faults).split("\n"))
        ),
        "license": spdx(_first(record, LICENSE_KEYS, MAX_TEXT, faults)),
        "source": _first(record, SOURCE_KEYS, MAX_TEXT, faults),
        "author": _first(record, AUTHOR_KEYS, MAX_TEXT, faults),
    }
    values["tags"] = _tags(record)
    try:
        values["boxes"] = _boxes(record.get("boxes"))
    except ValueError as error:
        faults.append(("boxes", str(error)))
    for field, reason in faults:
        folder.report(Problem(file, reason, line, field))
    return Description(image, **values)


def join_captions(captions: Iterable[str]) -> str:
    """Return the lines of captions, each once, as many as fit into `MAX_CAPTION` characters."""
    lines = [line for text in captions for line in text.split("\n") if line]
    joined, size = list[str](), 0
    for line in dict.fromkeys(lines):
        size += len(line) + 1
        if size > MAX_CAPTION + 1:
            break
        joined.append(line)
    return "\n".join(joined)


def split_tags(text: str, between: str = ";|,") -> tuple[str, ...]:
    """Return the tags of a text, each once, at most `MAX_TAGS`."""
    tags = (tag.strip() for tag in re.split(between, text))
    return tuple(dict.fromkeys(filter(None, tags)))[:MAX_TAGS]


def load_json(text: str, otherwise: object = None) -> Any:
    """Return the value of a JSON text, `otherwise` for any other text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return otherwise


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
    if REPLACEMENT in text:
        raise ValueError("is in an encoding that is not read; accepted: UTF-8, UTF-16, UTF-32, Windows-1252")
    if not text.isprintable():
        if any(category(char) == "Cs" for char in text):
            raise ValueError("is not in Unicode")
        text = "".join(" " if category(char) == "Cc" else char for char in text)
    return " ".join(text.split())


def _first(record: Mapping[str, object], keys: tuple[str, ...], limit: int, faults: list[_Fault]) -> str:
    """Return the first of several fields that is usable and not blank."""
    for key in keys:
        try:
            text = _text(_simplified(key, record.get(key)), limit, "\n" if key in _LINES else "; ")
        except ValueError as error:
            faults.append((key, f"`{key}` {error}"))
            continue
        if text:
            if isinstance(record[key], list) and keys is not CAPTION_KEYS:
                faults.append((key, f"`{key}` is a list; read as {_repr.repr(text)}"))
            return text
    return ""


def _tags(record: Mapping[str, object]) -> tuple[str, ...]:
    """Return the tags of a record: a list, or a text with commas or semicolons, of `tag_string` with spaces.

    Where they cannot be used the caption, which they may also be, reports it.
    """
    for key in TAG_KEYS:
        value = record.get(key)
        value = load_json(value, value) if isinstance(value, str) and value.startswith("[") else value
        try:
            text = _text(value, MAX_CAPTION, ";")
        except ValueError:
            continue
        if text:
            return split_tags(
                text, r"\s" if key == "tag_string" else ";" if isinstance(value, list) else ";|,"
            )
    return ()


def _without_tags(text: str) -> str:
    """Return the text of a piece of HTML, any other text as it is."""
    return " ".join(unescape(_TAGS.sub(" ", text)).split()) if _TAGS.search(text) else text


def _simplified(key: str, value: object) -> object:
    """Return the texts of a conversation or of sentences, a person's name, a license's address or name.

    Any other value is returned as it is.
    """
    if key == "conversations" and isinstance(value, list):
        turns = [turn for turn in value if isinstance(turn, dict)]
        return [turn.get("value") for turn in turns if turn.get("from") in ("gpt", "assistant")]
    if key in _LINES and isinstance(value, list) and all(isinstance(part, dict) for part in value):
        return [part.get("raw") or part.get("caption") or part.get("text") or "" for part in value]
    names = _NAMES if key in AUTHOR_KEYS else ("spdx_id", "url", "name") if key in LICENSE_KEYS else ()
    usable = (value[name] for name in names if isinstance(value, dict) and value.get(name))
    return next(usable, value)


def _text(value: object, limit: int, between: str) -> str:
    """Return a value's text, the parts of a list with `between` between them."""
    if value is None or (isinstance(value, float) and math.isnan(value)):  # an empty cell
        return ""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        text = between.join(filter(None, (clean(part, limit) for part in value[: limit + 1])))
        if len(text) > limit:
            raise ValueError(f"has {len(text):,} characters; accepted: at most {limit:,}")
        return text
    if not isinstance(value, str):
        raise ValueError(f"is {_repr.repr(value)}, not a string")
    return clean(value, limit)


def _boxes(value: object) -> dict[str, Box]:
    """Read boxes by name; refuse a name without a word, or a second one that differs in spelling only."""
    if isinstance(value, str):  # a cell of a table
        value = load_json(value, value)
    if not value:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"`boxes` is {_repr.repr(value)}, not an object of names")
    if len(value) > MAX_BOXES:
        raise ValueError(f"`boxes` has {len(value):,} of them; accepted: at most {MAX_BOXES}")
    boxes, spellings = dict[str, Box](), set[tuple[str, ...]]()
    for name, corners in value.items():
        try:
            clean(name, MAX_TEXT)
        except ValueError as error:
            raise ValueError(f"`boxes`: the name {ascii(name)[:60]} {error}") from None
        spelling = tuple(words(name))
        if not spelling or spelling in spellings:
            fault = "a second box under that name" if spelling else "a name without a word"
            raise ValueError(f"`boxes`: {_repr.repr(name)} is {fault}")
        spellings.add(spelling)
        boxes[name] = _box(name, corners)
    return boxes


def _box(name: str, value: object) -> Box:
    if isinstance(value, list) and len(value) == 4 and all(type(edge) in (int, float) for edge in value):
        x0, y0, x1, y1 = value
        if is_box((x0, y0, x1, y1)):
            return float(x0), float(y0), float(x1), float(y1)
    accepted = "[x0, y0, x1, y1] with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1"
    raise ValueError(f"the box of {_repr.repr(name)} is {_repr.repr(value)}; accepted: {accepted}")
