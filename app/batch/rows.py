"""Rows of a batch: the columns of a file as options, each fault with its line.

Columns are `prompt` (or `text`, `caption`), `id` (or `name`), `size`, `num_images`, the options of
`DrawOptions`, and settings with a dot in their name, such as `retrieval.k`. Others are columns of the author.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pleinair.app.api import DrawOptions
from pleinair.app.batch.source import (
    MAX_SHOWN,
    PROMPTS,
    BadRows,
    Fault,
    Fields,
    Source,
    column_name,
    read_fields,
)
from pleinair.app.parts import OwnParts
from pleinair.app.texts import is_utf8
from pleinair.app.toml.trees import read_value
from pleinair.tools.arguments import explain
from pleinair.tools.types import BadInput, Value

SEVERAL = "|"  # between the files of one cell
CLOSE = 0.75  # similarity of a name to that of an option, from which it is a slip and no column of the author
ALIASES = {  # usual names of columns, and ours
    **{name: "prompt" for name in PROMPTS},
    "name": "id",
    "negative": "negative_prompt",
    "n": "num_images",
    "steps": "num_inference_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "guidance": "guidance_scale",
    "reference": "input_images",
    "references": "input_images",
    "reference_images": "input_images",
}
INSTEAD = {  # usual names for which there is another means
    "model": "`generator.model` or `profile`",
    "quality": "`profile` or `num_inference_steps`",
    "aspect_ratio": "`width` and `height`, or --ar in the prompt",
    "ar": "`width` and `height`, or --ar in the prompt",
}
_OWN_IF_BESIDES = ("prompt", "id")  # further names of these are columns of the author
_OF_THE_BATCH = ("out", "name", "idempotency_key", "yes", "pictures", "overrides")  # no columns
_SETTING = re.compile(r"[a-z]\w*(\.[a-z]\w*)+")
_SIZE = re.compile(r"(\d+)\s*[x×*]\s*(\d+)", re.IGNORECASE)


class Row(Value):
    """Prompt of a batch with its options."""

    line: int  # of the file, from 1; where it begins
    id: str = ""
    prompt: str
    options: dict[str, Any] = {}  # of `DrawOptions`, and `num_images`
    overrides: dict[str, Any] = {}  # dotted settings
    columns: dict[str, Any] = {}  # of the author, by the names in the file
    number: int = 1  # among the rows with the same content

    @property
    def key(self) -> str:
        """Hash of the content and `number`; neither the line counts, so that rows may move, nor `columns`."""
        content = self.model_dump(mode="json", exclude={"line", "columns"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_rows(source: Source, defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[Row]:
    """Read the rows of a file.

    Args:
        source: the file.
        defaults: options of `DrawOptions` for rows that do not set them.
        overrides: dotted settings for rows that do not set them.

    Raises:
        BadRows: with every fault of every line.
        BadInput: there is no row, or it is not text in UTF-8 (or UTF-16 with a byte order mark).
    """
    faults: list[Fault] = []
    readers = (_RowReader(fields, source.folder, faults) for fields in read_fields(source, faults))
    rows = [row for reader in readers if (row := reader.read(defaults, overrides))]
    faults += _repeated_ids(rows)
    if faults:
        raise BadRows(source.name, faults)
    if not rows:
        raise BadInput(f"{source.name}: no prompt in it")
    counts: Counter[str] = Counter()
    return [_numbered(row, counts) for row in rows]


def _numbered(row: Row, counts: Counter[str]) -> Row:
    counts[row.key] += 1
    return row.model_copy(update={"number": counts[row.key]})


def _repeated_ids(rows: Sequence[Row]) -> Iterator[Fault]:
    lines: dict[str, int] = {}
    for row in rows:
        if row.id and (first := lines.setdefault(row.id, row.line)) != row.line:
            yield Fault(row.line, f"id = {row.id[:MAX_SHOWN]!r}: line {first} has it too")


@cache
def _columns() -> dict[str, Any]:
    """Return the options that a row may have, with their types."""
    others = {*_OF_THE_BATCH, *OwnParts.__annotations__}  # parts of a program are objects, and no columns
    options = {name: kind for name, kind in DrawOptions.__annotations__.items() if name not in others}
    return get_type_hints(SimpleNamespace(__annotations__=options)) | {"num_images": int | None}


def _column_names() -> list[str]:
    """Return the names of the columns, without the settings."""
    return ["prompt", "id", "size", *_columns()]


class _RowReader:
    """Reader of one row, which adds what is wrong to `faults`."""

    def __init__(self, fields: Fields, folder: Path, faults: list[Fault]) -> None:
        self._fields, self._folder, self._faults = fields, folder, faults
        self._own: dict[str, Any] = {}

    def read(self, defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> Row | None:
        """Return the row, None for one with a fault."""
        before = len(self._faults)
        values = self._named()
        prompt, id = self._words(values, "prompt"), self._words(values, "id")
        if prompt is None and len(self._faults) == before:
            self._fault("prompt", "required, but missing")
        self._split_size(values)
        options, settings = dict(defaults), dict(overrides)
        for name, value in values.items():
            if name in _columns():
                options[name] = self._option(name, value)
            else:
                settings[name] = self._setting(name, value)
        if len(self._faults) > before:
            return None
        row = Row(line=self._fields.line, id=id or "", prompt=prompt or "", columns=self._own)
        return row.model_copy(update={"options": options, "overrides": settings})

    def _named(self) -> dict[str, Any]:
        """Return the values that are not empty by our names of their columns, without those of the author."""
        names = {name: column_name(name) for name in self._fields.values}
        values: dict[str, Any] = {}
        for name, plain in names.items():
            value, ours = self._fields.values[name], ALIASES.get(plain, plain)
            if ours in _OWN_IF_BESIDES and plain != ours and ours in names.values():
                ours = ""
            if value in (None, ""):
                continue
            if ours in _column_names() or _SETTING.fullmatch(ours):
                if ours in values:
                    self._fault(repr(name[:MAX_SHOWN]), f"there is another column for `{ours}`")
                values[ours] = value
            elif self._is_own(name, ours):
                self._own[name] = value
        return values

    def _is_own(self, name: str, plain: str) -> bool:
        """Return whether a column is one of the author, and no slip."""
        if plain in INSTEAD:
            self._fault(
                repr(name[:MAX_SHOWN]), f"no column. Use {INSTEAD[plain]}, or rename it if it is your own"
            )
            return False
        if close := get_close_matches(plain, [*_column_names(), *ALIASES], n=1, cutoff=CLOSE):
            hint = f"Did you mean `{close[0]}`? Rename it if it is your own"
            self._fault(repr(name[:MAX_SHOWN]), f"unknown column. {hint}")
        return not close

    def _fault(self, name: str, text: str) -> None:
        self._faults.append(Fault(self._fields.line, f"{name[:MAX_SHOWN]}: {text}"))

    def _split_size(self, values: dict[str, Any]) -> None:
        """Replace a size, such as "1024x768", by width and height."""
        if (size := values.pop("size", None)) is None:
            return
        match = _SIZE.fullmatch(size) if isinstance(size, str) else None
        if match and not values.keys() & {"width", "height"}:
            values |= {"width": int(match[1]), "height": int(match[2])}
        else:
            hint = "must be width and height, such as 1024x768, without columns for them"
            self._fault(f"size = {repr(size)[:MAX_SHOWN]}", hint)

    def _words(self, values: dict[str, Any], name: str) -> str | None:
        """Remove a text from the values, None where there is none."""
        value = values.pop(name, None)
        if name == "id" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None or (isinstance(value, str) and is_utf8(value)):
            return value
        self._fault(name, f"{repr(value)[:MAX_SHOWN]}: must be a text")
        return None

    def _setting(self, name: str, value: Any) -> Any:
        try:
            return value if self._fields.has_types else read_value(name, value)
        except BadInput as error:
            self._fault(name, str(error))

    def _option(self, name: str, value: Any) -> Any:
        hint, has_types = _columns()[name], self._fields.has_types
        is_list = get_origin(hint) is Sequence
        if is_list and isinstance(value, str):
            value = [value] if has_types else [part.strip() for part in value.split(SEVERAL)]
        elif float in get_args(hint) and self._fields.has_decimal_commas:
            value = value.replace(",", ".")
        elif (
            isinstance(value, float) and value.is_integer()
        ):  # of a table with empty cells, as pandas writes it
            value = int(value)
        try:
            read = TypeAdapter(hint).validate_python(value, strict=has_types)
        except ValidationError as error:
            self._fault(f"{name} = {repr(value)[:MAX_SHOWN]}", explain(error.errors()[0]))
            return None
        if not is_utf8(json.dumps(value, ensure_ascii=False)):
            self._fault(name, "half a character; must be valid Unicode")
        return self._paths(read, is_list) if _has_path(hint) else read

    def _paths(self, value: Any, is_list: bool) -> Any:
        """Return paths as seen from the file's folder."""
        parts = value if is_list else [value]
        paths = [str(self._folder / Path(part).expanduser()) for part in parts]
        return paths if is_list else paths[0]


def _has_path(hint: Any) -> bool:
    return hint is Path or any(map(_has_path, get_args(hint)))
