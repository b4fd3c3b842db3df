"""Folder on object storage or a web server as one of a library's, by a URL that fsspec understands.

Credentials come from the environment or from files, as each driver has it: a URL with a user, a password or
a query is refused, and no address of a failed request is repeated. What was read is kept in the library's
cache. Not covered: servers that list nothing, chained URLs (`zip://…::s3://…`), and links.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pleinair.tools.callbacks import no_callback
from pleinair.tools.deadline import OVERTIME, check_deadline, finish_in_time, seconds_left
from pleinair.tools.retrieval.containers.container import SUFFIXES, RandomAccess
from pleinair.tools.retrieval.containers.listing import Stamp
from pleinair.tools.retrieval.readers.folder import Problem, is_printable
from pleinair.tools.retrieval.roots.read_cache import ReadCache
from pleinair.tools.retrieval.walk import PAUSE, Listing, is_left_out, may_be_image
from pleinair.tools.storage.object_store import open_files
from pleinair.tools.types import NoLibrary, PleinairError

T = TypeVar("T")
_BLOCK = 4 * 2**20  # bytes of a container fetched at once
_BLOCKS = 8  # kept of a container
_WHOLE = 64 * 2**20  # bytes of a file that is fetched and kept as a whole
_THREADS = 16  # requests at once
_FRESH = 60.0  # seconds that the answer about one file counts
_WAITS = (0.5, 2.0)  # seconds before the tries after the first one
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created", "Last-Modified")
_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "version_id")
_FINAL = (
    FileNotFoundError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    PleinairError,
    ImportError,
)


class RemoteRoot:
    """Files below a URL; nothing is asked before the first use."""

    def __init__(self, address: str, cache: Path | None = None) -> None:
        """Store a URL by `address_of`, and the folder of what was read; None: nothing is kept."""
        self.address = address
        self._cache = ReadCache(cache) if cache else None
        self._stamps: dict[str, tuple[float, Stamp | None]] = {}  # with the time until which they count

    def list(self, on_pause: Callable[[], None] = no_callback) -> Listing:
        """List the files; raise `NoLibrary` if there are none, `PleinairError` if the server fails."""
        listing = Listing()
        for count, (path, about) in enumerate(self._found(), start=1):
            if count % PAUSE == 0:
                on_pause()
            name = path or self.address
            if not is_printable(path):
                text = "a file name with control characters or not in UTF-8; left out"
                listing.problems.append(Problem(ascii(path), text))
            elif any(map(is_left_out, path.split("/"))) and path:
                listing.left_out.append(path)
            else:
                self._stamps[path] = math.inf, _stamp(about)
                is_image = may_be_image(name, lambda path=path: self.read(path, 32))  # type: ignore[misc]
                (listing.images if is_image else listing.others).append(path)
        return listing

    def has_image(self) -> bool:
        """Return whether there may be an image; folders are asked for one by one until there is."""

        def look() -> bool:
            for _, _, files in self._files.walk(self._root, detail=False):
                if any(may_be_image(name, bytes) or name.lower().endswith(SUFFIXES) for name in files):
                    return True
            return self.address.lower().endswith(SUFFIXES) and self._files.exists(self._root)

        return self._ask(look, "listed")

    def stamp(self, path: str) -> Stamp | None:
        """Return size and time or tag of a file, as it was a minute ago at most; None without one."""
        until, stamp = self._stamps.get(path, (0.0, None))
        if until < time.monotonic():
            try:
                stamp = _stamp(self._ask(lambda: self._files.info(self._full(path)), path))
            except FileNotFoundError:
                stamp = None
            self._stamps[path] = time.monotonic() + _FRESH, stamp
        return stamp

    def read(self, path: str, limit: int) -> bytes:
        """Return the first bytes of a file, at most `limit`; raise `OSError` if it cannot be read."""
        stamp = self.stamp(path)
        if stamp is None:
            raise FileNotFoundError(path)
        fetch = limit if stamp[0] > _WHOLE else _WHOLE
        data = self.cached(
            f"{path}\n{stamp}\n{fetch}",
            lambda: self._ask(lambda: self._files.cat_file(self._full(path), start=0, end=fetch), path),
        )
        if stamp[0] and len(data) < min(stamp[0], fetch):
            raise OSError("it was cut short")
        return data[:limit]

    def open(self, path: str) -> RandomAccess:
        """Open a file for reading any part of it; raise `OSError` if that fails."""
        stamp = self.stamp(path)
        if stamp is None:
            raise FileNotFoundError(path)
        return _RemoteFile(self, path, stamp[0])

    def part(self, path: str, start: int, end: int) -> bytes:
        """Return a part of a file; raise `OSError` if it cannot be read."""
        data: bytes = self._ask(lambda: self._files.cat_file(self._full(path), start=start, end=end), path)
        if len(data) < end - start or (start and len(data) > end - start):
            raise OSError("the server does not send parts of files, or the file has changed")
        return data[: end - start]

    def cached(self, key: str, fetch: Callable[[], bytes]) -> bytes:
        """Return what `fetch` returns, from the cache if it was fetched under the same key."""
        if self._cache is None:
            return fetch()
        return self._cache.get(f"{self.address}\n{key}", fetch)

    @cached_property
    def _connection(self) -> tuple[Any, str]:
        return open_files(self.address)

    @property
    def _files(self) -> Any:
        return self._connection[0]

    @property
    def _root(self) -> str:
        return self._connection[1]

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _found(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the relative path of every file with what the server says of it; "" for a file's own URL."""
        try:
            self._ask(self._files.invalidate_cache, "listed")
            entries = self._ask(lambda: self._files.find(self._root, detail=True), "listed")
        except OSError as error:
            raise NoLibrary(f"{self.address} cannot be listed ({error}).") from error
        if not entries:
            raise NoLibrary(f"{self.address} has no files, or does not list them.")
        unknown = [name for name, about in entries.items() if about.get("size") is None]
        with ThreadPoolExecutor(_THREADS) as pool:
            entries |= dict(zip(unknown, pool.map(self._info, unknown), strict=True))
        for name in sorted(entries):
            path = name.removeprefix(self._root).lstrip("/")
            if entries[name].get("type", "file") == "file":
                yield path, entries[name]

    def _info(self, name: str) -> Mapping[str, Any]:
        try:
            about: Mapping[str, Any] = self._ask(lambda: self._files.info(name), name)
        except OSError:
            return {"type": "unreadable"}
        return about

    def _ask(self, call: Callable[[], T], what: str) -> T:
        """Return the answer to a request, tried again after faults that may pass.

        Raise `OSError` without the driver's own words, which may hold addresses with signatures, and
        `OutOfTime` after the deadline.
        """
        for wait in (*_WAITS, None):
            check_deadline()
            try:
                return finish_in_time(call, OVERTIME)
            except _FINAL:
                raise
            except Exception as error:
                if wait is None:
                    raise OSError(
                        f"{type(error).__name__} of {urlsplit(self.address).scheme}, at {what}"
                    ) from None
            time.sleep(max(0.0, min(wait, seconds_left())))
        raise AssertionError


class _RemoteFile:
    """File of which blocks are fetched as they are needed."""

    def __init__(self, root: RemoteRoot, path: str, size: int) -> None:
        self._root, self._path, self.size = root, path, size
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        with self._lock:
            return b"".join(
                self._block(number)[max(0, offset - number * _BLOCK) : end - number * _BLOCK]
                for number in range(offset // _BLOCK, -(-end // _BLOCK))
            )

    def close(self) -> None:
        self._blocks.clear()

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * _BLOCK
            self._blocks[number] = self._root.part(self._path, start, min(start + _BLOCK, self.size))
        self._blocks.move_to_end(number)
        while len(self._blocks) > _BLOCKS:
            self._blocks.popitem(last=False)
        return self._blocks[number]


def _stamp(about: Mapping[str, Any]) -> Stamp:
    """Return the size of a file, and its time in nanoseconds or else a number for its tag."""
    size = int(about.get("size") or 0)
    changed = next((about[name] for name in _TIMES if about.get(name)), None)
    if isinstance(changed, str):
        changed = _parsed_time(changed)
    if isinstance(changed, datetime):
        return size, int(changed.timestamp() * 1e9)
    if isinstance(changed, int | float):
        return size, int(changed * 1e9)
    tag = next((about[name] for name in _TAGS if about.get(name)), "")
    return size, int.from_bytes(hashlib.sha256(str(tag).encode()).digest()[:7], "big")


def _parsed_time(text: str) -> datetime | None:
    """Return a time as JSON or HTTP (RFC 9110, 5.6.7) have it, None for any other text."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        with suppress(ValueError):
            return parse(text)
    return None
