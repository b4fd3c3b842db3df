"""One folder of a library: its files, wherever they are, and the images inside its containers.

An image inside a container has the container's path, a slash and its name there as its path, and a place: how
many characters of the path are the container's, a colon, and the place in the container.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pleinair.tools.callbacks import no_callback
from pleinair.tools.retrieval.containers.container import (
    COMPRESSED,
    SUFFIXES,
    BadContainer,
    Container,
    Fault,
    RandomAccess,
    Stored,
)
from pleinair.tools.retrieval.containers.listing import Stamp, container_of, list_container
from pleinair.tools.retrieval.readers.folder import Problem
from pleinair.tools.retrieval.readers.tables import STEMS
from pleinair.tools.retrieval.walk import PAUSE, Listing, is_left_out

# results that `datasets` keeps beside its files
_DERIVED = re.compile(r"(?:^|/)cache-[0-9a-f]+(?:_\d+_of_\d+)?\.arrow$")
_MAX_OPEN = 16  # containers of a root that are open at once


class Root(Protocol):
    """Folder, container or URL that is one of a library's."""

    address: str  # absolute path without links, or URL

    def stamp(self, path: str) -> Stamp | None:
        """Return size and mtime in nanoseconds of a file, which change with its content; None without one."""

    def read(self, path: str, limit: int) -> bytes:
        """Return the first bytes of a file, at most `limit`; raise `OSError` if it cannot be read."""

    def open(self, path: str) -> RandomAccess:
        """Open a file for reading any part of it; raise `OSError` if that fails."""


class Containers:
    """Containers of a root, of which the last ones used stay open."""

    def __init__(self, root: Root) -> None:
        """Store the root; nothing is opened yet."""
        self._root, self._lock = root, threading.Lock()
        self._open: OrderedDict[str, tuple[Stamp, Container]] = OrderedDict()

    def open(self, path: str) -> Container:
        """Open a container anew; raise `OSError` if that fails."""
        return container_of(path or self._root.address, self._root.open(path))

    def stamp(self, path: str, place: str) -> Stamp | None:
        """Return the stamp of the container of an image."""
        return self._root.stamp(_container_path(path, place))

    def read(self, path: str, place: str, limit: int) -> bytes:
        """Return the first bytes of an image, at most `limit`; raise `OSError` if it cannot be read."""
        container, inner = _container_path(path, place), place.partition(":")[2]
        stamp = self._root.stamp(container)
        if stamp is None:
            raise FileNotFoundError(container)
        try:
            return self._opened(container, stamp).read(inner, limit)
        except BadContainer as error:
            raise OSError(f"{container}: {error}") from error

    def _opened(self, path: str, stamp: Stamp) -> Container:
        with self._lock:
            if path in self._open and self._open[path][0] == stamp:
                self._open.move_to_end(path)
            else:  # one that has changed is opened anew; a container closes its file when nobody reads it
                self._open[path] = stamp, self.open(path)
            while len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
            return self._open[path][1]


@dataclass
class Contents:
    """Files of a root, those inside its containers included; the `Files` of the readers.

    `listing` has no containers among its other files, but those that hold no image.
    """

    root: Root
    listing: Listing
    cache: Path | None = None
    stored: dict[str, tuple[str, int]] = field(default_factory=dict)  # inside containers: place, bytes
    stamps: dict[str, Stamp] = field(default_factory=dict)  # of containers with images

    def __post_init__(self) -> None:
        """Open no container yet."""
        self.containers = Containers(self.root)

    def expand(
        self,
        on_pause: Callable[[], None] = no_callback,
        on_progress: Callable[[int, int], None] = no_callback,
    ) -> Contents:
        """List the containers among the other files.

        `on_pause` is called now and then, `on_progress` receives containers listed and in total; both may
        raise to stop.
        """
        others, self.listing.others = sorted(self.listing.others), []
        total, done = sum(map(self._is_container, others)), 0
        for path in others:
            name = (path or self.root.address).lower()
            if _DERIVED.search(name):
                self.listing.left_out.append(path)
                continue
            if name.endswith(COMPRESSED):
                text = "a compressed tar is not read in place: unpack it, or store it as plain .tar"
                self.listing.problems.append(Problem(name, text))
            if not self._is_container(path):
                self.listing.others.append(path)
                continue
            if not self._expand(path, on_pause):
                self.listing.others.append(path)
            done += 1
            on_progress(done, total)
        return self

    def holds_image(self) -> bool:
        """Return whether there is an image, before `expand`; containers are listed as far as their first."""
        files = filter(self._is_container, self.listing.others)
        return bool(self.listing.images) or any(
            isinstance(stored, Stored) and stored.is_image
            for path in files
            if (stamp := self.root.stamp(path))
            for stored in self._list(path, stamp)
        )

    def place(self, path: str) -> str:
        """Return the place of a file inside a container, "" of any other."""
        return self.stored[path][0] if path in self.stored else ""

    def stamp(self, path: str) -> Stamp | None:
        """Return size and mtime of a file, the mtime of its container for one inside; None without one."""
        if path not in self.stored:
            return self.root.stamp(path)
        place, size = self.stored[path]
        return size, self.stamps[_container_path(path, place)][1]

    def read(self, path: str, limit: int) -> bytes:
        """Return the first bytes of a file, at most `limit`; raise `OSError` if it cannot be read."""
        if path in self.stored:
            return self.containers.read(path, self.stored[path][0], limit)
        return self.root.read(path, limit)

    def rows(self) -> Iterator[tuple[str, str, Stored]]:
        """Yield container, image and what the container has stored, for each image in a row of a table."""
        for container, stamp in self.stamps.items():
            for stored in self._list(container, stamp):
                if isinstance(stored, Stored) and stored.line:
                    yield container, _joined(container, stored.name), stored

    def _is_container(self, path: str) -> bool:
        name = (path or self.root.address).lower()
        return name.endswith(SUFFIXES) and not _DERIVED.search(name)

    def _expand(self, container: str, on_pause: Callable[[], None]) -> bool:
        """Add the files of a container; return whether it holds an image."""
        images, others, faults = list[str](), list[str](), list[Fault]()
        stamp = self.root.stamp(container)
        for count, stored in enumerate(self._list(container, stamp) if stamp else (), start=1):
            if count % PAUSE == 0:
                on_pause()
            if isinstance(stored, Fault):
                faults.append(stored)
                continue
            path = _joined(container, stored.name)
            if any(map(is_left_out, stored.name.split("/"))):
                self.listing.left_out.append(path)
                continue
            (images if stored.is_image else others).append(path)
            self.stored[path] = f"{len(container)}:{stored.place}", stored.size
        if images or not _is_table(container):  # of a table without images the readers report what is wrong
            name = container or os.path.basename(self.root.address)
            self.listing.problems.extend(Problem(name, fault.text, fault.line) for fault in faults)
        if images and stamp:
            self.stamps[container] = stamp
            self.listing.images.extend(images)
            self.listing.others.extend(others)
        return bool(images)

    def _list(self, container: str, stamp: Stamp) -> Iterator[Stored | Fault]:
        key = f"{self.root.address}\n{container}"
        try:
            yield from list_container(lambda: self.containers.open(container), key, stamp, self.cache)
        except OSError:
            yield Fault("cannot be read")


def _container_path(path: str, place: str) -> str:
    """Return the path of the container of an image at a place."""
    return path[: int(place.partition(":")[0])]


def _joined(container: str, name: str) -> str:
    return f"{container}/{name}" if container else name


def _is_table(path: str) -> bool:
    stem, suffix = os.path.splitext(os.path.basename(path).lower())
    return suffix == ".parquet" and stem in STEMS
