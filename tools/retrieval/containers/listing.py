"""What containers hold, kept in the library's cache until the container changes."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from pleinair.tools.retrieval.containers.container import Container, Fault, RandomAccess, Stored
from pleinair.tools.storage.files import explain

_VERSION = 1  # of the cache; increase it when the same container is listed otherwise
Stamp = tuple[int, int]  # size in bytes, mtime in nanoseconds


def container_of(name: str, file: RandomAccess) -> Container:
    """Return the container that a file is by its ending."""
    if name.lower().endswith(".tar"):
        from pleinair.tools.retrieval.containers.tar import Tar

        return Tar(file)
    from pleinair.tools.retrieval.containers.rows import Rows

    return Rows(file)


def list_container(
    open_container: Callable[[], Container], key: str, stamp: Stamp, cache: Path | None
) -> Iterator[Stored | Fault]:
    """Yield what a container holds, from the cache if it has not changed.

    Args:
        open_container: called if it is to be listed; may raise `OSError`.
        key: name of the container among all of them.
        stamp: changes with its content.
        cache: folder; None: it is listed each time.
    """
    path = cache and cache / f"container-{hashlib.sha256(os.fsencode(key)).hexdigest()[:24]}.jsonl.gz"
    head = json.dumps([_VERSION, *stamp])
    if path and (lines := _stored_lines(path, head)) is not None:
        yield from lines
        return
    container = open_container()
    try:
        yield from _recorded(container.files(), path, head) if path else container.files()
    finally:
        container.close()


def _stored_lines(path: Path, head: str) -> Iterator[Stored | Fault] | None:
    """Return the lines of a complete listing with that head, None without one."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return _lines(path) if file.readline().rstrip("\n") == head else None
    except (OSError, EOFError, ValueError):
        return None


def _lines(path: Path) -> Iterator[Stored | Fault]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        next(file)
        for line in file:
            fields = json.loads(line)
            yield Fault(**fields) if "text" in fields else Stored(**fields)


def _recorded(files: Iterator[Stored | Fault], path: Path, head: str) -> Iterator[Stored | Fault]:
    """Yield files and write them down; what was written counts if all of them were asked for."""
    part = path.with_name(f".{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(part, "wt", compresslevel=1, encoding="utf-8") as record:
            record.write(f"{head}\n")
            for file in files:
                record.write(f"{json.dumps(asdict(file))}\n")
                yield file
        part.replace(path)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
