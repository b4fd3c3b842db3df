"""Atomic writes of files, and what to do when a disk is full.

Local disks only. Not covered: power cuts on file systems that ignore `fsync`.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from pleinair.tools.types import BadInput, PleinairError

RESERVE = 64 * 2**20  # bytes left free, so that the run table and the logs can still be written
PART_AGE = 3600.0  # seconds after which a part file has no living writer
_MAX_NAME, _MAX_PATH = 255, 4095  # bytes, of Linux and its file systems
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class DiskFull(PleinairError):
    """A file did not fit; nothing of it was left behind."""


def write_whole(
    path: Path,
    data: bytes | memoryview,
    *,
    reserve: int = RESERVE,
    parts: Path | None = None,
    durable: bool = True,
) -> None:
    """Write `data` to `path` in one step: a reader sees the old file or the new one, never a part.

    `parts` is where the unfinished file is, on the same disk; the file's own folder unless given. A file that
    is not `durable` survives the death of this process, and not a power cut.
    Raise `DiskFull` when fewer than `reserve` bytes would stay free, and `PleinairError` for other faults.
    """
    part = (parts or path.parent) / f".{uuid4().hex}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < len(data) + reserve:
            raise OSError(errno.ENOSPC, "reserve")
        _write_part(part, data, durable)
        os.replace(part, path)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        with suppress(OSError):  # the first error is the one to report; `sweep_parts` comes later
            part.unlink(missing_ok=True)


def checked_path(text: str, key: str) -> Path:
    """Return a path with the home folder filled in, from the setting `key`.

    Raises `BadInput` for one that no file system takes, with the key and the beginning of the path.
    """
    try:
        path = Path(text).expanduser()
        names = [os.fsencode(part) for part in path.parts]
        size = len(os.fsencode(path.absolute()))
    except RuntimeError:
        reason = "there is no such user"
    except UnicodeEncodeError:
        reason = "it is not valid Unicode"
    except OSError as error:
        reason = f"the current folder cannot be used: {error.strerror}"
    else:
        too_long = size > _MAX_PATH or any(len(name) > _MAX_NAME for name in names)
        reason = "it is too long" if too_long else "it has a NUL character" if "\0" in text else ""
        if not reason:
            return path
    raise BadInput(f"{key} = {text[:80]!r}{'…' * (len(text) > 80)}: {reason}; must be a path")


def require_writable(folder: Path) -> None:
    """Raise `PleinairError` where no file can be written at or below `folder`; nothing is left behind."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"\0")  # a full disk takes an empty file
            file.flush()
    except OSError as error:
        raise explain(error, folder) from error


def stamp_of(path: str | Path) -> tuple[int, int] | None:
    """Return a file's size and mtime in nanoseconds, which change with its content; None without a file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def explain(error: OSError, path: Path | str) -> PleinairError:
    """Return the error of a failed write to `path`, with what to do."""
    if error.errno in _FULL:
        return DiskFull(
            f"No room left to write {path}; what was stored before is intact.",
            "Free some space or choose another folder, then run again.",
        )
    if error.errno in _READ_ONLY:
        return PleinairError(f"Cannot write {path}: it is read-only ({error.strerror}).")
    return PleinairError(f"Cannot write {path}: {error.strerror or 'the storage refused it'}.")


def sweep_parts(folder: Path, older_than: float = PART_AGE) -> None:
    """Remove the unfinished files of killed writers, `older_than` seconds or more of age, from `folder`."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):  # another process was first, or may not: the file does no harm
            if time.time() - part.stat().st_mtime >= older_than:
                part.unlink()


def _write_part(part: Path, data: bytes | memoryview, durable: bool) -> None:
    with part.open("xb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(file.fileno())
        if os.fstat(file.fileno()).st_size != len(data):  # some network disks shorten without an error
            raise OSError(errno.ENOSPC, "short write")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
