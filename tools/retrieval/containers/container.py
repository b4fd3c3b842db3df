"""Protocol of a container: a file whose images are listed once and then read by their places in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pleinair.tools.types import PleinairError

SUFFIXES = (".tar", ".parquet", ".arrow")
COMPRESSED = tuple(
    ".tar.gz .tgz .tar.bz2 .tbz2 .tar.xz .txz .tar.zst .tzst".split()
)  # which cannot be read in place
MAX_NAME = 1000  # characters of a name in a container


class BadContainer(PleinairError):
    """A container cannot be read, or no longer at a place."""


@dataclass(frozen=True, slots=True)
class Stored:
    """File inside a container.

    Args:
        name: relative path with `/`, unique in the container.
        size: bytes.
        place: what `Container.read` takes; opaque elsewhere.
        is_image: whether it may be an image, by its ending or its first bytes.
        record: fields of a row, as `readers.records` names them; empty for a file of a tar.
        line: number of the row, from 1; 0 for a file of a tar.
    """

    name: str
    size: int
    place: str
    is_image: bool = True
    record: Mapping[str, Any] = field(default_factory=dict, hash=False)
    line: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """What of a container cannot be used, and the number of the row where there is one."""

    text: str
    line: int | None = None


class RandomAccess(Protocol):
    """File of which any part can be read, by several threads at once."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer at the end; raise `OSError` if that fails."""

    def close(self) -> None:
        """Close the file."""


class Container(Protocol):
    """Contents of one container."""

    def files(self) -> Iterator[Stored | Fault]:
        """Yield the files, images and others, in the order in which they are stored; and what is unusable."""

    def read(self, place: str, limit: int) -> bytes:
        """Return the bytes at a place, at most `limit`; raise `BadContainer` for an unusable place."""

    def close(self) -> None:
        """Close the file."""


class LocalFile:
    """File on a disk of this machine."""

    _file = -1  # where it cannot be opened

    def __init__(self, path: str | Path) -> None:
        """Open a file; raise `OSError` if that fails."""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._file).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer at the end."""
        return os.pread(self._file, length, offset)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def __del__(self) -> None:
        self.close()


def read_exactly(file: RandomAccess, offset: int, length: int) -> bytes:
    """Return `length` bytes from `offset`; raise `BadContainer` if the file ends before or cannot be read."""
    parts, end = list[bytes](), offset + length
    try:
        while offset < end and (part := file.read(offset, end - offset)):
            parts.append(part)
            offset += len(part)
    except OSError as error:
        raise BadContainer(f"cannot be read: {error.strerror or type(error).__name__}") from error
    if offset < end:
        raise BadContainer("has changed: it ends before a file in it")
    return b"".join(parts)
