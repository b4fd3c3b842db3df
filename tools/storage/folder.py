"""Files of a folder by their names, on this machine or at any location of fsspec, each written as a whole.

Not covered: locks between writers (the last one wins), and folders that are renamed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from pleinair.tools.storage.away import Away
from pleinair.tools.storage.files import RESERVE, DiskFull, explain, stamp_of, write_whole
from pleinair.tools.storage.object_store import open_files
from pleinair.tools.types import BadInput, PleinairError

T = TypeVar("T")
Stamp = tuple[int, int]  # bytes, and nanoseconds since the epoch; they change with the content
AT_ONCE = 8  # requests to a storage
_TIMES = ("last_modified", "mtime", "LastModified", "updated", "created")  # of the drivers

_CREATE = "Create the bucket, or set cluster.objects to one that exists."
_CREDENTIALS = "Check the credentials of the storage in the environment, and what they may do."
_CONNECTION = "Check that the storage can be reached from here, then try again."


class StorageFault(PleinairError):
    """A storage of fsspec refused a request."""


class StorageAway(Away, StorageFault):
    """A storage of fsspec gave no answer, or not the one that was expected, after all tries."""


class Folder:
    """Folder of files, which need not exist; names may have slashes.

    `place` is a path or an fsspec URL (`memory://…`, `s3://…`). On a local disk a write is atomic, is on the
    disk on return unless it is not `durable`, and leaves `reserve` bytes free; object storage shows an object
    once it is complete. A read or write that fails raises `PleinairError`, on a full disk `DiskFull`.
    """

    def __init__(self, place: str | Path, *, reserve: int = RESERVE, parts: str = "") -> None:
        """Open nothing yet; `parts` is the folder of unfinished files below a local one."""
        self._reserve, self._parts = reserve, parts
        self.local: Path | None = None  # the folder on this machine
        if isinstance(place, Path) or "://" not in place:
            self.local = Path(place).expanduser().absolute()
        elif place.startswith("file://"):
            self.local = Path(place.removeprefix("file://"))
        else:
            self._files, self._root = _opened(place)

    def __str__(self) -> str:
        """Return the path of a local folder, else the URL."""
        return str(self.local or self._files.unstrip_protocol(self._root))

    def check(self) -> None:
        """Write, read and remove a small file; raise `PleinairError` where that is not possible."""
        name, data = f".check-{uuid4().hex}", b"pleinair"
        self.write(name, data, durable=False)
        if self.read(name) != data:
            raise StorageFault(f"{self.path(name)} was written and is not there.", _CONNECTION)
        self.remove_file(name)

    def below(self, name: str) -> Folder:
        """Return a folder below this one."""
        return Folder(self.local / name if self.local else f"{self}/{name}", reserve=self._reserve)

    def path(self, name: str) -> str:
        """Return the path of a file of a local folder, else its URL."""
        return f"{self}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is none."""
        try:
            if self.local:
                return (self.local / name).read_bytes()
            return bytes(self._ask(lambda: self._files.cat_file(f"{self._root}/{name}"), name, "read"))
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = error.strerror or "the storage refused it"
            raise PleinairError(f"Cannot read {self.path(name)}: {reason}.") from error

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the content of several files by their names; those that are missing are left out."""
        wanted = list(names)
        with nullcontext() if self.local else ThreadPoolExecutor(AT_ONCE) as pool:
            contents = (pool.map if pool else map)(self.read, wanted)
            return {name: data for name, data in zip(wanted, contents, strict=True) if data is not None}

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Write a file as a whole; a reader sees the old content or the new one, never a part."""
        if self.local:
            parts = self.local / self._parts if self._parts else None
            write_whole(self.local / name, data, reserve=self._reserve, parts=parts, durable=durable)
            return
        place = f"{self._root}/{name}"
        try:
            self._ask(lambda: self._files.pipe_file(place, data), name, "write")
            size = self._ask(lambda: self._files.size(place), name, "write") if durable else len(data)
        except FileNotFoundError as error:
            raise StorageFault(
                f"Cannot write {self.path(name)}: there is no such bucket.", _CREATE
            ) from error
        if size != len(data):
            self.remove_file(name)
            part = f"The store took only a part of {self.path(name)}."
            raise DiskFull(part, "Make room there, then run again.")

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each file by its name, which has a slash in a folder below; {} without any."""
        if self.local:
            return dict(_local_sizes(self.local))
        try:
            self._files.invalidate_cache()
            entries = self._ask(lambda: self._files.find(self._root, detail=True), "", "list")
        except FileNotFoundError:
            return {}
        sizes = {str(path): int(about.get("size") or 0) for path, about in entries.items()}
        return {path.removeprefix(self._root).lstrip("/"): size for path, size in sizes.items()}

    def folders(self) -> list[str]:
        """Return the names of the folders in this one."""
        if self.local:
            return [path.name for path in self.local.glob("*") if path.is_dir()]
        try:
            self._files.invalidate_cache()
            entries = self._ask(lambda: self._files.ls(self._root, detail=True), "", "list")
        except FileNotFoundError:
            return []
        places = [str(each["name"]) for each in entries if each["type"] == "directory"]
        return [place.rstrip("/").rpartition("/")[2] for place in places]

    def stamp(self, name: str) -> Stamp | None:
        """Return a stamp of a file that changes with its content; None if there is none."""
        if self.local:
            return stamp_of(self.local / name)
        try:
            self._files.invalidate_cache()
            about = self._ask(lambda: self._files.info(f"{self._root}/{name}"), name, "read")
        except FileNotFoundError:
            return None
        return int(about.get("size") or 0), _nanoseconds(about)

    def remove_file(self, name: str) -> None:
        """Remove a file if it is there."""
        with suppress(FileNotFoundError):
            if self.local:
                (self.local / name).unlink()
            else:
                self._ask(lambda: self._files.rm_file(f"{self._root}/{name}"), name, "remove")

    def remove(self) -> None:
        """Remove the folder with all its files, if it is there."""
        if self.local:
            with suppress(FileNotFoundError):
                shutil.rmtree(self.local)
            return
        for name in self.sizes():
            self.remove_file(name)

    def _ask(self, call: Callable[[], T], name: str, verb: str) -> T:
        """Return the answer of the driver, whose errors may be of any class, or raise `StorageFault`."""
        try:
            return call()
        except (FileNotFoundError, PleinairError):
            raise
        except Exception as error:
            raise self._fault(verb, self.path(name).rstrip("/"), error) from error

    def _fault(self, verb: str, place: str, error: Exception) -> PleinairError:
        if isinstance(error, OSError) and isinstance(full := explain(error, place), DiskFull):
            return full
        reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        message = f"Cannot {verb} {place}: {reason.rstrip('.')}."
        if isinstance(error, PermissionError):
            return StorageFault(message, _CREDENTIALS)
        return StorageAway(message, _CONNECTION)


def read_file(place: str) -> bytes | None:
    """Return the content of a file by its path or URL; None if there is none. Raise as `Folder.read` does."""
    folder, _, name = place.rpartition("/")
    return Folder(folder).read(name)


def _opened(url: str) -> tuple[Any, str]:
    try:
        return open_files(url)
    except BadInput as error:
        raise BadInput(f"Cannot store files at {url}: {error.message}", error.remedy) from error


def _local_sizes(folder: Path) -> Iterator[tuple[str, int]]:
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path.stat().st_size


def _nanoseconds(about: Mapping[str, Any]) -> int:
    changed = next((about[name] for name in _TIMES if about.get(name)), 0)
    seconds = changed.timestamp() if isinstance(changed, datetime) else changed
    return int(seconds * 1e9) if isinstance(seconds, int | float) else 0
