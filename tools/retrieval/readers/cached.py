"""What is slow to read from image files, kept in the library's cache by path, size and time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from pleinair.tools.retrieval.readers.folder import Folder
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import PleinairError

T = TypeVar("T")
Cache = TypeAdapter[dict[str, tuple[int, int, T]]]  # by image: size, mtime in nanoseconds, what was read


def read_cached(
    folder: Folder, images: Iterable[str], name: str, cache: Cache[T], read: Callable[[str], T]
) -> dict[str, T]:
    """Return what `read` returns for each image, from the cache `name` where a file has not changed.

    Images for which it raises `OSError` are left out. The folder's `on_progress` counts the files that are
    read, and may raise to stop.
    """
    root = hashlib.sha256(os.fsencode(folder.root)).hexdigest()[:16]
    path = folder.cache and folder.cache / f"{root}-{name}.json"
    stored = _load(path, cache) if path else {}
    stamps = {image: stamp for image in images if (stamp := folder.source.stamp(image))}
    current = {image: stored[image] for image, stamp in stamps.items() if stored.get(image, ())[:2] == stamp}
    changed = [image for image in stamps if image not in current]

    def read_one(image: str) -> tuple[int, int, T] | None:
        with suppress(OSError):
            return *stamps[image], read(image)
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for done, (image, entry) in enumerate(
                zip(changed, pool.map(read_one, changed), strict=True), start=1
            ):
                if entry:
                    current[image] = entry
                if folder.on_progress:
                    folder.on_progress(done, len(changed))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if path and current != stored:
        with suppress(OSError, PleinairError):  # the next use reads the files again
            write_whole(path, json.dumps(current).encode())
    return {image: value for image, (_, _, value) in current.items()}


def _load(path: Path, cache: Cache[T]) -> dict[str, tuple[int, int, T]]:
    try:
        return cache.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}  # what it contained is read again
