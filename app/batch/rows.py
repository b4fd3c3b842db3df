"""Rows of a batch, read from a file of prompts: text, CSV or JSON Lines; each fault with its line.

A text file has one prompt a line; blank lines and those that begin with `#` are passed over. A CSV file has
names of columns in its first line; commas, semicolons (as of Excel) and tabs separate. A JSON Lines file has
one object a line. Columns are `prompt`, `id` (or `name`), `num_images`, the options of `DrawOptions`, and
settings with a dot in their name, such as `retrieval.k`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pleinair.app.api import DrawOptions
from pleinair.app.parts import OwnParts
from pleinair.app.texts import counted, is_utf8
from pleinair.app.toml.trees import read_value
from pleinair.tools.arguments import explain
from pleinair.tools.registry import did_you_mean
from pleinair.tools.types import BadInput, Value

KINDS = {".txt": "txt", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}  # by the end of the name
STDIN = "-"
COMMENT = "#"  # first character of a line of a text file that is no prompt
SEVERAL = "|"  # between the files of one cell
MOST_FAULTS = 20  # that are listed
MOST_LINES = 5  # that are listed with the same fault
_SEPARATORS = ",;\t"
_OF_THE_BATCH = ("out", "idempotency_key", "yes", "pictures", "overrides")  # no columns
_MAX_SHOWN = 80  # characters of a value in a message


class Fault(NamedTuple):
    """What is wrong with a line of a file."""

    line: int  # from 1
    text: str


class BadRows(BadInput):
    """Rows of a file are unusable; `faults` are all, in the order of the lines."""

    def __init__(self, name: str, faults: Sequence[Fault]) -> None:
        self.faults = sorted(faults)
        lines = len({fault.line for fault in faults})
        self.heading = f"{name}: {counted(lines, 'line')} cannot be used; nothing was generated"
        super().__init__(f"{self.heading}: {'; '.join(self.lines())}")

    def lines(self) -> Iterator[str]:
        """Yield the first faults as lines of text, equal ones together, and how many there are more."""
        groups: dict[str, list[int]] = {}
        for fault in self.faults:
            groups.setdefault(fault.text, []).append(fault.line)
        for text, numbers in islice(groups.items(), MOST_FAULTS):
            more = f" and {len(numbers) - MOST_LINES} more" if len(numbers) > MOST_LINES else ""
            noun = "line" if len(numbers) == 1 else "lines"
            yield f"{noun} {', '.join(map(str, numbers[:MOST_LINES]))}{more}: {text}"
        if len(groups) > MOST_FAULTS:
            yield f"and {counted(len(groups) - MOST_FAULTS, 'other fault')}"


class Row(Value):
    """Prompt of a batch with its options."""

    line: int  # of the file, from 1; where it begins
    id: str = ""
    prompt: str
    options: dict[str, Any] = {}  # of `DrawOptions`, and `num_images`
    overrides: dict[str, Any] = {}  # dotted settings
    number: int = 1  # among the rows with the same content

    @property
    def key(self) -> str:
        """Hash of the content and `number`; the line does not count, so that rows may move."""
        content = self.model_dump(mode="json", exclude={"line"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Source(NamedTuple):
    """File of prompts as bytes."""

    name: str
    data: bytes
    kind: str  # a value of `KINDS`
    folder: Path  # from which paths in it start


def open_source(file: str, standard_input: Callable[[], bytes]) -> Source:
    """Read a file, or standard input for `-`; raise `BadInput` for one that cannot be read."""
    if file == STDIN:
        data = standard_input()
        is_json = _text(data, "standard input").lstrip().startswith("{")
        return Source("standard input", data, "jsonl" if is_json else "txt", Path.cwd())
    path = Path(file).expanduser()
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        accepted = ", ".join(KINDS)
        raise BadInput(f"{file!r}: must be a name that ends in {accepted}, or - for standard input")
    try:
        return Source(file, path.read_bytes(), kind, path.absolute().parent)
    except (OSError, ValueError) as error:
        raise BadInput(f"{file!r}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


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
    text = _text(source.data, source.name)
    faults: list[Fault] = []
    rows = []
    for line, fields, is_json in _READERS[source.kind](text, faults):
        reader = _RowReader(line, source.folder, is_json, faults)
        if row := reader.read(fields, defaults, overrides):
            rows.append(row)
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
            yield Fault(row.line, f"id = {row.id[:_MAX_SHOWN]!r}: line {first} has it too")


def _text(data: bytes, name: str) -> str:
    """Decode a file; a byte order mark decides between UTF-8 and UTF-16, and is left out."""
    is_wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{name}: line {line}: not in UTF-8", "Save it as UTF-8.") from error


Fields = tuple[int, dict[str, Any], bool]  # line, values by column, whether they have JSON's types


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers; other signs that Unicode counts as ends of lines are text."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _read_txt(text: str, faults: list[Fault]) -> Iterator[Fields]:
    for number, line in _lines(text):
        if not line.lstrip().startswith(COMMENT):
            yield number, {"prompt": line.strip()}, False


def _read_jsonl(text: str, faults: list[Fault]) -> Iterator[Fields]:
    for number, line in _lines(text):
        try:
            value = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            faults.append(Fault(number, f"not JSON: {error}"))
            continue
        if isinstance(value, dict):
            yield number, value, True
        else:
            faults.append(Fault(number, f"{line[:_MAX_SHOWN]}: must be a JSON object"))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has a key twice")
    return values


def _read_csv(text: str, faults: list[Fault]) -> Iterator[Fields]:
    separator, text, before = _separator(text)
    csv.field_size_limit(max(len(text), 1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names: list[str] | None = None
    while True:
        line = before + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            faults.append(Fault(line, f"not CSV: {error}"))
            return
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if names is None:
            names = [_name(cell) for cell in cells]
            if doubled := [name for name, count in Counter(filter(None, names)).items() if count > 1]:
                faults.append(Fault(line, f"column {doubled[0]!r}: there twice"))
                return
        elif any(cell.strip() for cell in cells[len(names) :]):
            faults.append(Fault(line, f"{counted(len(cells), 'cell')}; the columns are {len(names)}"))
        else:
            yield line, _cells(names, cells, separator), False


def _separator(text: str) -> tuple[str, str, int]:
    """Return the separator of a CSV file, its text without Excel's `sep=` line, and the lines before."""
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) == len("sep=,"):
        return first.strip()[-1], rest, 1
    header = next((line for _, line in _lines(text)), "")
    for separator in _SEPARATORS:
        if "prompt" in map(_name, next(csv.reader([header], delimiter=separator), [])):
            return separator, text, 0
    return max(_SEPARATORS, key=header.count), text, 0


def _cells(names: Sequence[str], cells: Sequence[str], separator: str) -> dict[str, Any]:
    """Return the cells of a row that are not empty, with decimal points as of a table without commas."""
    filled = {name: cell.strip() for name, cell in zip(names, cells, strict=False) if cell.strip()}
    if separator == ";":
        numbers = [name for name in filled if float in get_args(_columns().get(name))]
        filled |= {name: filled[name].replace(",", ".") for name in numbers}
    return filled


_READERS: dict[str, Callable[[str, list[Fault]], Iterator[Fields]]] = {
    "txt": _read_txt,
    "csv": _read_csv,
    "jsonl": _read_jsonl,
}


def _name(text: str) -> str:
    """Return a column's name in the form of an option: "Negative prompt" is `negative_prompt`."""
    return text.strip().lower().replace(" ", "_").replace("-", "_")


@cache
def _columns() -> dict[str, Any]:
    """Return the options that a row may have, with their types."""
    others = {*_OF_THE_BATCH, *OwnParts.__annotations__}  # parts of a program are objects, and no columns
    options = {name: kind for name, kind in DrawOptions.__annotations__.items() if name not in others}
    return get_type_hints(SimpleNamespace(__annotations__=options)) | {"num_images": int | None}


def column_names() -> list[str]:
    """Return the names of the columns, without the settings."""
    return ["prompt", "id", "name", *_columns()]


class _RowReader:
    """Reader of one row, which adds what is wrong to `faults`."""

    def __init__(self, line: int, folder: Path, is_json: bool, faults: list[Fault]) -> None:
        self._line, self._folder, self._is_json, self._faults = line, folder, is_json, faults

    def read(
        self, fields: dict[str, Any], defaults: Mapping[str, Any], overrides: Mapping[str, Any]
    ) -> Row | None:
        """Return the row, None for one with a fault."""
        before = len(self._faults)
        values = {_name(name): value for name, value in fields.items() if value not in (None, "")}
        if "name" in values:
            values["id" if "id" not in values else "name"] = values.pop("name")
        prompt, id = self._words(values, "prompt"), self._words(values, "id")
        if prompt is None and len(self._faults) == before:
            self._fault("prompt", "required, but missing")
        options, settings = dict(defaults), dict(overrides)
        for name, value in values.items():
            if "." in name:
                settings[name] = self._setting(name, value)
            elif name in _columns():
                options[name] = self._option(name, value)
            else:
                self._unknown(name)
        if len(self._faults) > before:
            return None
        return Row(line=self._line, id=id or "", prompt=prompt or "", options=options, overrides=settings)

    def _fault(self, name: str, text: str) -> None:
        self._faults.append(Fault(self._line, f"{name[:_MAX_SHOWN]}: {text}"))

    def _unknown(self, name: str) -> None:
        if name == "name":
            self._fault("name", "there is an `id` too; must be one of them")
            return
        hint = did_you_mean(name, column_names()) or f" Accepted: {', '.join(column_names())}, and settings."
        self._fault(repr(name[:_MAX_SHOWN]), f"unknown column.{hint}")

    def _words(self, values: dict[str, Any], name: str) -> str | None:
        """Take a text out of the values, None where there is none."""
        value = values.pop(name, None)
        if name == "id" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None or (isinstance(value, str) and is_utf8(value)):
            return value
        self._fault(name, f"{repr(value)[:_MAX_SHOWN]}: must be a text")
        return None

    def _setting(self, name: str, value: Any) -> Any:
        try:
            return value if self._is_json else read_value(name, value)
        except BadInput as error:
            self._fault(name, str(error))

    def _option(self, name: str, value: Any) -> Any:
        hint = _columns()[name]
        is_list = get_origin(hint) is Sequence
        if is_list and isinstance(value, str):
            value = [value] if self._is_json else [part.strip() for part in value.split(SEVERAL)]
        try:
            read = TypeAdapter(hint).validate_python(value, strict=self._is_json)
        except ValidationError as error:
            shown = repr(value)[:_MAX_SHOWN]
            self._fault(f"{name} = {shown}", explain(error.errors()[0]))
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
