"""The child process that parses Parquet and Arrow files: it gives up its rights, then asks for parts of them.

The parent reads the files, so that the child needs none open, and a parser that is taken over reaches no
other file. Rows are numbered from 1. Not covered: Arrow streams with dictionaries, encrypted Parquet.
"""

from __future__ import annotations

import io
import json
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, Protocol

from pleinair.tools.images.decoding import SUFFIXES
from pleinair.tools.images.sandbox_process import drop_rights
from pleinair.tools.images.signatures import HEAD, is_image, suffix_of
from pleinair.tools.retrieval.readers.folder import is_printable
from pleinair.tools.retrieval.readers.records import FILE_KEYS, KEYS, normal_key

MESSAGE = struct.Struct(">cQ")  # kind of a message of the child, bytes that follow
NEED, ROW, DATA, FAULT, END = b"n", b"r", b"d", b"f", b"e"
PART = struct.Struct(">QQ")  # of NEED: offset, length
LENGTH = struct.Struct(">Q")  # before what the parent sends
MAX_PART = 512 * 2**20  # bytes asked for at once: a batch of an Arrow file
MEMORY = 5 * MAX_PART  # bytes that the process may take beyond what it has when idle
_BUFFER = 2**20  # bytes of a Parquet column that are read at once
_BATCH = 16 * 2**20  # bytes of rows decoded at once, about
_MAX_ROWS = 256  # decoded at once
_CACHED = 2  # batches, so that threads that read in order need each decoded once
_NAME_PARTS = 2  # of a path in a row that become its image's name: a class folder and the file

Lines = Iterator[tuple[bytes, Any]]


class Unusable(Exception):
    """The file, or a row of it, cannot be used; the text is the reason."""


class _Batches(Protocol):
    """Row groups or record batches of a file."""

    schema: Any

    def walk(self, columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Yield the batches with their places, each with the columns only where that saves work."""

    def row(self, place: str, row: int, column: str) -> Any:
        """Return the value of a column, as a scalar, in a row counted from a place's first row."""


def serve(descriptor: int) -> None:
    """Drop all rights, then answer requests until the parent closes the socket."""
    import pyarrow.parquet  # noqa: F401  # before modules can no longer be opened

    with socket.socket(fileno=descriptor) as channel, channel.makefile("rwb") as stream:
        drop_rights(MEMORY, threads=False)
        table, key = None, ""
        while head := stream.read(LENGTH.size):
            request = json.loads(stream.read(LENGTH.unpack(head)[0]))
            try:
                if table is None or key != request["key"]:
                    table, key = _Table(_Remote(stream, request["size"])), request["key"]
                for kind, payload in table.images() if request["place"] is None else table.read(**request):
                    _send(stream, kind, payload)
                _send(stream, END, b"")
            except Unusable as error:
                _send(stream, FAULT, str(error).encode())
                table = None
            except (MemoryError, OSError, ValueError, LookupError, TypeError):  # pyarrow's errors are such
                _send(stream, FAULT, b"")
                table = None


def _send(stream: io.BufferedRWPair, kind: bytes, payload: Any) -> None:
    data = payload if isinstance(payload, bytes) else json.dumps(payload, default=_name_of_type).encode()
    stream.write(MESSAGE.pack(kind, len(data)))
    stream.write(data)
    stream.flush()


def _name_of_type(value: object) -> dict[str, None]:
    """Return a value that no field accepts in place of one that JSON has not, such as a date."""
    return {type(value).__name__: None}


class _Remote(io.RawIOBase):
    """File that the parent reads, for pyarrow."""

    def __init__(self, stream: io.BufferedRWPair, size: int) -> None:
        self._stream, self._size, self._offset = stream, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._offset = offset + (0, self._offset, self._size)[whence]
        return self._offset

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self._size - self._offset)
        size = rest if size < 0 else min(size, rest)
        if size > MAX_PART:
            raise Unusable(f"a part of over {MAX_PART:,} bytes: store it in smaller row groups or batches")
        if not size:
            return b""
        _send(self._stream, NEED, PART.pack(self._offset, size))
        data = self._stream.read(LENGTH.unpack(self._stream.read(LENGTH.size))[0])
        self._offset += len(data)
        return data


class _Table:
    """Parquet or Arrow file: its images, and what its other columns say."""

    def __init__(self, file: _Remote) -> None:
        head = file.read(8)
        file.seek(0)
        kind = _ParquetFile if head[:4] == b"PAR1" else _ArrowFile if head[:6] == b"ARROW1" else _ArrowStream
        self._batches: _Batches = kind(file)
        self._schema = self._batches.schema
        self._labels = _class_names(self._schema)

    def images(self) -> Lines:
        """Yield a line for each image, and what is unusable."""
        candidates = _image_columns(self._schema)
        image, others = self._chosen(candidates)
        if others:
            also = ", ".join(f"`{name}`" for name in others)
            yield ROW, {"fault": f"`{image}` is read; other columns with images are not: {also}"}
        facts = [name for name in self._schema.names if self._is_fact(name, candidates)]
        names, line, empty = set[str](), 0, dict[str, int]()
        for place, batch in self._batches.walk((image, *facts)) if image else ():
            records = self._records(batch, facts)
            for row, record in enumerate(records):
                line += 1
                for element, value in _elements(batch.column(image)[row]):
                    if reason := _reason_against(value):
                        empty[reason] = empty.get(reason, 0) + 1
                        continue
                    name = _name_of(value, record, line, element, names)
                    names.add(name)
                    at = f"{place}:{row}:{self._schema.names.index(image)}:{element}"
                    size = value.data.size
                    yield ROW, {"name": name, "size": size, "place": at, "record": record, "line": line}
        for reason, count in empty.items():
            yield ROW, {"fault": f"`{image}`: {count:,} {'row' if count == 1 else 'rows'} {reason}"}

    def read(self, place: str, limit: int, **_: Any) -> Lines:
        """Yield the bytes of the image at a place."""
        start, row, column, element = place.rsplit(":", 3)
        name = self._schema.names[int(column)]
        values = dict(_elements(self._batches.row(start, int(row), name)))
        data = values[int(element)].data
        if data is None:
            raise Unusable("has changed: no image there any more")
        yield DATA, data[:limit].to_pybytes()

    def _chosen(self, candidates: Sequence[str]) -> tuple[str, list[str]]:
        """Return the first column that holds images, "" for none, and the others that do."""
        for _, batch in self._batches.walk(candidates) if candidates else ():
            with_images = [
                name
                for name in candidates
                if any(
                    not _reason_against(value)
                    for scalar in batch.column(name)
                    for _, value in _elements(scalar)
                )
            ]
            if with_images:
                return with_images[0], with_images[1:]
        return "", []

    def _is_fact(self, name: str, candidates: Sequence[str]) -> bool:
        """Return whether a column says something about an image; numbers without names say nothing."""
        import pyarrow.types as types

        kind = self._schema.field(name).type
        is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
        has_meaning = normal_key(name) in KEYS and (not is_number or name in self._labels)
        return has_meaning and name not in candidates

    def _records(self, batch: Any, facts: Sequence[str]) -> Iterator[dict[str, Any]]:
        for record in batch.select(facts).to_pylist():
            for name in self._labels.keys() & record.keys():
                with suppress(TypeError, LookupError):
                    record[name] = self._labels[name][record[name]]
            yield record


class _Value:
    """Image as a cell holds it: its bytes, None without them, and its path, "" without one."""

    def __init__(self, scalar: Any) -> None:
        is_struct = hasattr(scalar, "keys")
        data = scalar["bytes"] if is_struct and scalar.is_valid else scalar
        self.data: Any = data.as_buffer() if data.is_valid and hasattr(data, "as_buffer") else None
        path = scalar["path"].as_py() if is_struct and scalar.is_valid and "path" in scalar.keys() else ""
        self.path = path if isinstance(path, str) else ""


def _elements(scalar: Any) -> Iterator[tuple[int, _Value]]:
    """Yield the values of a cell with their indices, -1 for one that is no list."""
    if not hasattr(scalar, "values") or hasattr(scalar, "keys"):
        yield -1, _Value(scalar)
    elif scalar.is_valid:
        yield from ((index, _Value(value)) for index, value in enumerate(scalar.values))


def _reason_against(value: _Value) -> str:
    """Return why a value is no image, "" if it may be one."""
    if value.data is None or not value.data.size:
        return "with the path of a file only, which is not read" if value.path else "without an image"
    return "" if is_image(value.data[:HEAD].to_pybytes()) else "with other data than an image"


def _image_columns(schema: Any) -> list[str]:
    """Return the columns that may hold images: bytes, structs of bytes and path, and lists of either."""
    names = [name for name in dict.fromkeys(schema.names) if _holds_bytes(schema.field(name).type)]
    order = {key: place for place, key in enumerate(FILE_KEYS)}
    return sorted(names, key=lambda name: order.get(normal_key(name), len(order)))


def _holds_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_list(kind) or types.is_large_list(kind):
        kind = kind.value_type
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Return the names of the numbers in columns of classes, which data sets of Hugging Face record."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: list(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _name_of(value: _Value, record: Mapping[str, Any], line: int, element: int, names: set[str]) -> str:
    """Return an image's name, which no earlier one has: the end of its path, or the number of its row."""
    path = value.path or next(filter(None, (_text(record, key) for key in FILE_KEYS)), "")
    parts = [part for part in path.replace("\\", "/").split("/") if part.strip(". ")][-_NAME_PARTS:]
    name = PurePosixPath(*parts)
    number = f"{line:06d}" + (f"-{element}" if element >= 0 else "")
    if not parts or not is_printable(path) or any(part.startswith(".") or len(part) > 200 for part in parts):
        name = PurePosixPath(number)
    suffix = suffix_of(value.data[:HEAD].to_pybytes())
    stem = str(name)
    if name.suffix.lower() in SUFFIXES:
        stem, suffix = stem.removesuffix(name.suffix), name.suffix
    if f"{stem}{suffix}" in names:
        stem = f"{stem}-{number}"
    while f"{stem}{suffix}" in names:
        stem += "-"
    return f"{stem}{suffix}"


def _text(record: Mapping[str, Any], key: str) -> str:
    value = next((value for name, value in record.items() if normal_key(name) == key), "")
    return value if isinstance(value, str) else ""


class _ParquetFile:
    """Parquet file; a place is a row group and the first row of a batch in it."""

    def __init__(self, file: _Remote) -> None:
        from pyarrow.parquet import ParquetFile

        self._file = ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER)
        self.schema = self._file.schema_arrow
        self._position: tuple[int, str] | None = None
        self._rows: Iterator[Any] = iter(())
        self._recent: list[tuple[int, Any]] = []  # first rows and their batches

    def walk(self, columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
        for group in range(self._file.num_row_groups):
            first = 0
            for batch in self._group(group, columns):
                yield f"{group}:{first}", batch
                first += batch.num_rows

    def row(self, place: str, row: int, column: str) -> Any:
        group, first = map(int, place.split(":"))
        wanted = first + row
        if self._position != (group, column) or wanted < self._recent[0][0]:
            self._position, self._rows = (group, column), self._group(group, [column])
            self._recent = [(0, next(self._rows))]
        while wanted >= (end := self._recent[-1][0] + self._recent[-1][1].num_rows):
            self._recent = [*self._recent, (end, next(self._rows))][-_CACHED:]
        start, batch = next((start, batch) for start, batch in reversed(self._recent) if start <= wanted)
        return batch.column(column)[wanted - start]

    def _group(self, group: int, columns: Sequence[str]) -> Iterator[Any]:
        about = self._file.metadata.row_group(group)
        rows = max(1, min(_MAX_ROWS, _BATCH * about.num_rows // max(1, about.total_byte_size)))
        batches: Iterator[Any] = self._file.iter_batches(
            rows, row_groups=[group], columns=list(columns), use_threads=False
        )
        return batches


class _Arrow:
    """Record batches of Arrow's IPC formats, the last ones kept."""

    schema: Any

    def __init__(self) -> None:
        self._recent: dict[str, Any] = {}

    def row(self, place: str, row: int, column: str) -> Any:
        if place not in self._recent:
            while len(self._recent) >= _CACHED or any(
                batch.nbytes > MAX_PART // _CACHED for batch in self._recent.values()
            ):
                del self._recent[next(iter(self._recent))]
            self._recent[place] = self._batch(place)
        return self._recent[place].column(column)[row]

    def _batch(self, place: str) -> Any:
        raise NotImplementedError


class _ArrowStream(_Arrow):
    """Arrow's stream format, as `datasets` writes it; a place is the offset of a batch's message."""

    def __init__(self, file: _Remote) -> None:
        from pyarrow import PythonFile, ipc, types

        super().__init__()
        self._file = file
        self._reader = ipc.open_stream(PythonFile(file, mode="r"), options=_options())
        self.schema = self._reader.schema
        self._first = file.tell()
        if any(types.is_dictionary(kind) for kind in self.schema.types):
            raise Unusable("an Arrow stream with dictionaries; save the columns as strings")

    def walk(self, columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
        offset = self._first
        while (batch := self._next(offset)) is not None:
            following = self._file.tell()
            yield str(offset), batch
            offset = following

    def _batch(self, place: str) -> Any:
        batch = self._next(int(place))
        if batch is None:
            raise Unusable("has changed: no batch there any more")
        return batch

    def _next(self, offset: int) -> Any:
        """Return the batch at an offset, None at the end."""
        from pyarrow import PythonFile, ipc

        self._file.seek(offset)
        try:
            message = ipc.read_message(PythonFile(self._file, mode="r"))
        except EOFError:
            return None
        return ipc.read_record_batch(message, self.schema)


class _ArrowFile(_Arrow):
    """Arrow's file format, also called Feather; a place is the number of a batch."""

    def __init__(self, file: _Remote) -> None:
        from pyarrow import PythonFile, ipc

        super().__init__()
        self._reader = ipc.open_file(PythonFile(file, mode="r"), options=_options())
        self.schema = self._reader.schema

    def walk(self, columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
        for number in range(self._reader.num_record_batches):
            yield str(number), self._batch(str(number))

    def _batch(self, place: str) -> Any:
        return self._reader.get_batch(int(place))


def _options() -> Any:
    from pyarrow.ipc import IpcReadOptions

    return IpcReadOptions(use_threads=False)
