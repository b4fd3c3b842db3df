"""Tar files as WebDataset's shards are: the headers are read once, then each file by its offset.

Formats: ustar, pax and GNU (POSIX.1-2017, pax; GNU tar manual, "Basic Tar Format"). Of two files of one name
the first counts. Not covered: compressed tars, in which nothing can be read by its offset, sparse files and
links.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import NamedTuple

from pleinair.tools.images.signatures import HEAD
from pleinair.tools.retrieval.containers.container import (
    MAX_NAME,
    BadContainer,
    Fault,
    RandomAccess,
    Stored,
    read_exactly,
)
from pleinair.tools.retrieval.readers.folder import is_printable
from pleinair.tools.retrieval.walk import may_be_image

_BLOCK = tarfile.BLOCKSIZE
_MAX_EXTRA = 2**20  # bytes of a header that extends the next one
_PAX, _PAX_GLOBAL = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE), tarfile.XGLTYPE
_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_EXTENDED = 482, 504  # of a sparse file: flag for a further block in the first one, and in each further one


class _Member(NamedTuple):
    """Member of a tar with what the headers before it say of it."""

    info: tarfile.TarInfo
    start: int  # of the data

    @property
    def end(self) -> int:
        """Return the offset behind the data, in whole blocks; links and folders have none."""
        kind = self.info.type
        has_data = self.info.isreg() or kind in _LONG or kind not in tarfile.SUPPORTED_TYPES
        return self.start + (-(-self.info.size // _BLOCK) * _BLOCK if has_data else 0)


class Tar:
    """Container of the regular files of an uncompressed tar."""

    def __init__(self, file: RandomAccess) -> None:
        """Read from a file; nothing is read before `files` or `read`."""
        self._file = file

    def files(self) -> Iterator[Stored | Fault]:
        """Yield the regular files, and a fault for each that cannot be used; the last one may be a cut."""
        names = set[str]()
        try:
            for member in self._members():
                if member.info.isdir():
                    continue
                name = member.info.name.removeprefix("./")
                fault = _fault_of(member, name, names)
                if not fault and member.start + member.info.size > self._file.size:
                    fault = "the tar ends in the middle of it; left out"
                if fault:
                    yield Fault(f"{ascii(name[:200])}: {fault}")
                else:
                    names.add(name)
                    head = partial(read_exactly, self._file, member.start, min(HEAD, member.info.size))
                    place = f"{member.start}:{member.info.size}"
                    yield Stored(name, member.info.size, place, may_be_image(name, head))
        except (tarfile.HeaderError, ValueError):
            yield Fault("damaged, or not a tar; the rest is not read" if names else "not a tar, or damaged")
        except BadContainer as error:
            yield Fault(f"{error}; the rest is not read")

    def read(self, place: str, limit: int) -> bytes:
        """Return the bytes at a place, at most `limit`; raise `BadContainer` for fewer there."""
        offset, size = map(int, place.split(":"))
        return read_exactly(self._file, offset, min(size, limit))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _members(self) -> Iterator[_Member]:
        """Yield the members; raise `HeaderError` or `ValueError` at a damaged header."""
        offset, defaults, extra = 0, dict[str, str](), dict[str, str]()
        while offset + _BLOCK <= self._file.size:
            block = read_exactly(self._file, offset, _BLOCK)
            if not any(block):
                return
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            if info.size < 0:
                raise ValueError("a negative size")
            member = _Member(info, offset + _BLOCK)
            offset = member.end
            if info.type in _LONG:
                extra[_LONG[info.type]] = self._extra(member).rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif info.type == _PAX_GLOBAL:
                defaults |= _pax(self._extra(member))
            elif info.type in _PAX:
                extra |= _pax(self._extra(member))
            else:
                member = _extended(member, defaults | extra)
                if info.type == tarfile.GNUTYPE_SPARSE:
                    member = self._sparse(member, block)
                extra, offset = {}, member.end
                yield member

    def _extra(self, member: _Member) -> bytes:
        if member.info.size > _MAX_EXTRA:
            raise ValueError("a header without end")
        return read_exactly(self._file, member.start, member.info.size)

    def _sparse(self, member: _Member, block: bytes) -> _Member:
        """Return a GNU sparse file's member with its data behind the further blocks of its map."""
        flag, start = block[_EXTENDED[0]], member.start
        while flag:
            flag = read_exactly(self._file, start, _BLOCK)[_EXTENDED[1]]
            start += _BLOCK
        return member._replace(start=start)


def _fault_of(member: _Member, name: str, names: set[str]) -> str:
    """Return why a member cannot be used, "" if it can."""
    if member.info.type == tarfile.GNUTYPE_SPARSE or member.info.pax_headers:
        return "a sparse file; left out"
    if not member.info.isreg():
        return "a link, or no regular file; left out"
    if len(name) > MAX_NAME or not is_printable(name):
        return f"a name of over {MAX_NAME:,} characters, with control characters or not in UTF-8; left out"
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        return "leaves the tar's own folder; left out"
    return "a second file of that name; the first counts" if name in names else ""


def _extended(member: _Member, fields: dict[str, str]) -> _Member:
    """Return a member with what pax headers say instead of its own."""
    info = member.info
    info.name = fields.get("path", info.name)
    info.size = int(fields.get("size", info.size))
    if info.size < 0:
        raise ValueError("a negative size")
    info.pax_headers = {name: value for name, value in fields.items() if name.startswith("GNU.sparse.")}
    return member


def _pax(data: bytes) -> dict[str, str]:
    """Return the fields of a pax header: records of the form "length name=value" and a line feed."""
    fields = dict[str, str]()
    while data.rstrip(b"\0"):
        length = int(data[: data.index(b" ")])
        if not 3 < length <= len(data):
            raise ValueError("a record without end")
        name, _, value = data[:length].rstrip(b"\n").partition(b" ")[2].partition(b"=")
        fields[name.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return fields
