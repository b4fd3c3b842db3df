"""File of prompts: text, CSV or JSON, read as bytes and taken apart into the fields of each row.

A text file has one prompt a line; blank lines and those that begin with `#` are passed over. A CSV file has
names of columns in its first line; commas, semicolons (as of Excel) and tabs separate. A JSON file has
objects or strings, one a line or in an array.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pleinair.app.texts import counted
from pleinair.tools.types import BadInput

KINDS = {  # by the end of the name
    ".txt": "txt",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
STDIN = "-"
PROMPTS = ("prompt", "text", "caption")  # names of the column with the prompts
COMMENT = "#"  # first character of a line of a text file that is no prompt
MAX_SHOWN = 80  # characters of a value in a message
MOST_FAULTS = 20  # that are listed
MOST_LINES = 5  # that are listed with the same fault
_SEPARATORS = ",;\t"
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')  # a whole line as Excel quotes a cell
_MARKER = re.compile(r"(?:(\d+)[.)]|[-*•])\s+")  # of an item of a list
_BETWEEN = re.compile(r"[\s,]*")  # JSON values


class Fault(NamedTuple):
    """What is wrong with a line of a file."""

    line: int  # from 1
    text: str
    remedy: str = ""


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
        yield from dict.fromkeys(fault.remedy for fault in self.faults if fault.remedy)


class Source(NamedTuple):
    """File of prompts as bytes."""

    name: str
    data: bytes
    kind: str  # a value of `KINDS`
    folder: Path  # from which paths in it start


class Fields(NamedTuple):
    """Values of a row by the names of their columns."""

    line: int  # of the file, from 1; where the row begins
    values: dict[str, Any]
    has_types: bool = False  # those of JSON; else all values are texts
    has_decimal_commas: bool = False


def open_source(file: str, standard_input: Callable[[], bytes]) -> Source:
    """Read a file, or standard input for `-`; raise `BadInput` for one that cannot be read."""
    if file == STDIN:
        data = standard_input()
        is_json = _text(data, "standard input").lstrip().startswith(("{", "["))
        return Source("standard input", data, "json" if is_json else "txt", Path.cwd())
    path = Path(file).expanduser()
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        accepted = ", ".join(KINDS)
        raise BadInput(f"{file!r}: must be a name that ends in {accepted}, or - for standard input")
    try:
        return Source(file, path.read_bytes(), kind, path.absolute().parent)
    except (OSError, ValueError) as error:
        raise BadInput(f"{file!r}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_fields(source: Source, faults: list[Fault]) -> Iterator[Fields]:
    """Yield the fields of the rows of a file and append what cannot be taken apart to `faults`.

    Raises `BadInput` for a file that is not text in UTF-8 (or UTF-16 with a byte order mark).
    """
    text = _text(source.data, source.name)
    return _READERS[source.kind](text, faults)


def column_name(text: str) -> str:
    """Return a column's name in the form of an option: "Negative prompt" is `negative_prompt`."""
    return text.strip().lower().replace(" ", "_").replace("-", "_")


def _text(data: bytes, name: str) -> str:
    """Decode a file; a byte order mark decides between UTF-8 and UTF-16, and is left out."""
    is_wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if is_wide else "utf-8-sig")
        place = text.find("\0")
    except UnicodeDecodeError as error:
        text, place = data.decode("latin-1"), error.start
    if place >= 0:
        line = text.count("\n", 0, place) + 1
        raise BadInput(
            f"{name}: line {line}: not in UTF-8",
            "Save it as UTF-8: in Excel as `CSV UTF-8`, else by `iconv -f WINDOWS-1252 -t UTF-8`.",
        )
    return text


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers; other signs that Unicode counts as ends of lines are text."""
    return ((number, line) for number, line in enumerate(_unix(text).split("\n"), 1) if line.strip())


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_txt(text: str, faults: list[Fault]) -> Iterator[Fields]:
    lines = [(number, line.strip()) for number, line in _lines(text) if not line.lstrip().startswith(COMMENT)]
    has_markers = _is_list([line for _, line in lines])
    for number, line in lines:
        prompt = line[marker.end() :] if has_markers and (marker := _MARKER.match(line)) else line
        quoted = _QUOTED.fullmatch(prompt)
        yield Fields(number, {"prompt": quoted[1].replace('""', '"').strip() if quoted else prompt})


def _is_list(lines: Sequence[str]) -> bool:
    """Return whether all lines are items of one list: numbered from 1, or with the same bullet."""
    markers = [_MARKER.match(line) for line in lines]
    numbers = [marker and marker[1] for marker in markers]
    is_numbered = numbers == [str(number) for number in range(1, len(lines) + 1)]
    has_bullets = all(markers) and not any(numbers) and len({line[0] for line in lines}) == 1
    return len(lines) > 1 and (is_numbered or has_bullets)


def _read_json(text: str, faults: list[Fault]) -> Iterator[Fields]:
    """Yield the objects of JSON Lines or of one array; a comma after each does no harm."""
    text = _unix(text).rstrip()
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    line, counted_to, place = 1, 0, 0
    if is_array := text.lstrip().startswith("["):
        place, text = text.index("[") + 1, text.removesuffix("]").ljust(len(text))
    has_end = not is_array or text.endswith(" ")
    while True:
        begin = _BETWEEN.match(text, place).end()  # type: ignore[union-attr]  # it matches nothing too
        line, counted_to = line + text.count("\n", counted_to, begin), begin
        if begin == len(text):
            break
        try:
            value, place = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError) as error:
            faults.append(Fault(line, f"not JSON: {_json_fault(error, begin)}"))
            place = text.find("\n", begin) if "\n" in text[begin:] else len(text)
            continue
        if isinstance(value, dict | str):
            yield Fields(line, value if isinstance(value, dict) else {"prompt": value}, has_types=True)
        else:
            faults.append(Fault(line, f"{json.dumps(value)[:MAX_SHOWN]}: must be an object or a string"))
    if not has_end:
        faults.append(Fault(line, "the array has no end; `]` is missing"))


def _json_fault(error: Exception, begin: int) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, at character {error.pos - begin + 1} of the row"
    return str(error)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has a key twice")
    return values


def _read_csv(text: str, faults: list[Fault]) -> Iterator[Fields]:
    separator, text, before = _separator(text)
    csv.field_size_limit(max(len(text), csv.field_size_limit()))  # of the process: it is only raised
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=separator != "\t")
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
            names = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, 1)]
            if fault := _header_fault(names):
                faults.append(Fault(line, fault))
                return
        elif any(cell.strip() for cell in cells[len(names) :]):
            faults.append(Fault(line, f"{counted(len(cells), 'cell')}; the columns are {len(names)}"))
        else:
            values = {name: cell.strip() for name, cell in zip(names, cells, strict=False)}
            yield Fields(line, values, has_decimal_commas=separator == ";")


def _header_fault(names: Sequence[str]) -> str:
    """Return what is wrong with the names of columns, "" for nothing."""
    counts = Counter(map(column_name, names))
    if doubled := [name for name, count in counts.items() if count > 1]:
        return f"column {doubled[0][:MAX_SHOWN]!r}: there twice"
    if not counts.keys() & set(PROMPTS):
        shown = ", ".join(names)
        accepted = ", ".join(f"`{name}`" for name in PROMPTS)
        return f"{shown[:MAX_SHOWN]!r}: must be the names of the columns, one of them {accepted}"
    return ""


def _separator(text: str) -> tuple[str, str, int]:
    """Return the separator of a CSV file, its text from the names of the columns on, and the lines before.

    Excel's `sep=` line and comments may come before the names.
    """
    separators, before = _SEPARATORS, 0
    for line in text.splitlines(keepends=True):
        first = line.strip()
        if first.lower().startswith("sep=") and len(first) == len("sep=,"):
            separators = first[-1]
        elif first and (_header_separator(line, separators) or not first.startswith(COMMENT)):
            found = _header_separator(line, separators) or max(separators, key=line.count)
            return found, text, before
        before, text = before + 1, text[len(line) :]
    return separators[0], text, before


def _header_separator(line: str, separators: str) -> str:
    """Return the separator by which a line is one of names with a prompt, "" if it is none."""
    for separator in separators:
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=separator != "\t"), [])
        if set(map(column_name, cells)) & set(PROMPTS):
            return separator
    return ""


_READERS: dict[str, Callable[[str, list[Fault]], Iterator[Fields]]] = {
    "txt": _read_txt,
    "csv": _read_csv,
    "json": _read_json,
}
