"""Reader of `metadata.parquet`, which a process of its own parses: the parser must not take this one with it.

The process has the limits and rights of those that decode images (`images.sandbox`). Not covered: limits on
memory where the system has none (macOS).
"""

from __future__ import annotations

import io
import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from typing import Any

from pydantic import TypeAdapter

from pleinair.tools.child_process import ChildProcess, bare_environment
from pleinair.tools.images.sandbox_process import drop_rights
from pleinair.tools.retrieval.readers.folder import MAX_FILE
from pleinair.tools.retrieval.readers.records import KEYS, normal_key
from pleinair.tools.retrieval.readers.tables import Row, Table, missing_columns

_MAX_ROWS = 10_000_000  # equal ones take no space
_MAX_ROW = 64 * 2**20  # bytes of one as JSON
_MEMORY = 4 * MAX_FILE  # bytes that the process may take beyond the file
_TIMEOUT = 60.0  # seconds until the next row
_LINE: TypeAdapter[Row | None] = TypeAdapter(tuple[int | None, dict[str, Any] | str] | None)


class Parquet(Table):
    """Reader of `metadata.parquet`; needs the extra `parquet`. A problem's line is the number of a row."""

    rank = 14
    suffix = ".parquet"

    def _rows(self, data: bytes) -> Iterator[Row]:
        if find_spec("pyarrow") is None:
            yield None, "needs the extra `parquet`: pip install 'pleinair[parquet]'"
            return
        ours, theirs = socket.socketpair()
        ours.settimeout(_TIMEOUT)
        environment = bare_environment() | {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # others reserve much
        process = ChildProcess(__name__, ours, theirs, stdout=subprocess.DEVNULL, env=environment)
        line = 0
        try:
            ours.sendall(data)
            ours.shutdown(socket.SHUT_WR)
            with ours.makefile("rb") as answers:
                while row := _LINE.validate_json(answers.readline(_MAX_ROW)):
                    line = row[0] or line
                    yield row
        except (OSError, ValueError):  # the process ended without its last line, or hangs
            yield line + 1, "not a table that can be read"
        finally:
            process.close()


def serve(descriptor: int) -> None:
    """Receive a file, give up all rights, and answer with its rows as lines of JSON, the last one null."""
    import pyarrow.parquet  # noqa: F401  # before modules can no longer be opened

    with socket.socket(fileno=descriptor) as channel, channel.makefile("rwb") as stream:
        data = stream.read()
        drop_rights(_MEMORY, threads=False)
        for row in _parsed(data):
            stream.write(json.dumps(row, default=_name_of_type).encode() + b"\n")
        stream.write(b"null\n")


def _name_of_type(value: object) -> dict[str, None]:
    """Return a value that no field accepts in place of one that JSON has not, such as a date."""
    return {type(value).__name__: None}


def _parsed(data: bytes) -> Iterator[Row]:
    from pyarrow.parquet import ParquetFile

    file = ParquetFile(io.BytesIO(data), pre_buffer=False)  # which would start a thread
    schema = file.schema_arrow
    usable = [
        f"{name}.path" if _is_struct(schema.field(name).type) else name
        for name in schema.names
        if normal_key(name) in KEYS
    ]
    yield from missing_columns([normal_key(name) for name in schema.names])
    if file.metadata.num_rows > _MAX_ROWS or _largest_group(file, usable) > MAX_FILE:
        yield None, f"over {_MAX_ROWS:,} rows, or {MAX_FILE:,} bytes in a row group"
        return
    batches = file.iter_batches(256, columns=usable, use_threads=False)
    yield from enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), start=1)


def _is_struct(kind: Any) -> bool:
    """Return whether a column holds images as structs of bytes and path, as data sets of Hugging Face do."""
    return hasattr(kind, "get_field_index") and kind.get_field_index("path") >= 0


def _largest_group(file: Any, columns: Sequence[str]) -> int:
    """Return the bytes of columns in the largest row group of a Parquet file, without its compression."""
    beginnings = tuple(f"{name}." for name in columns)
    sizes = [0]
    for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        used = [chunk for chunk in chunks if f"{chunk.path_in_schema}.".startswith(beginnings)]
        sizes.append(sum(chunk.total_uncompressed_size for chunk in used))
    return max(sizes)
