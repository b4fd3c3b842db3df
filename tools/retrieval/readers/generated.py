"""Captions that an MLLM has written for images of a library, and their reader.

The captions of all libraries are in one file of JSON lines, by the SHA-256 of the image's file, so that a
moved or renamed image keeps its caption. They count before the names of folders and files, and after
everything that people wrote. Of several captions for the same file the last counts.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from shutil import disk_usage

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from pleinair.tools.retrieval.readers.cached import Cache, read_cached
from pleinair.tools.retrieval.readers.folder import Description, Files, Folder
from pleinair.tools.retrieval.readers.records import MAX_CAPTION, MAX_TEXT, clean
from pleinair.tools.storage.files import RESERVE, explain
from pleinair.tools.types import BadInput

NAME = "generated"  # of the reader
_MAX_IMAGE = 2**30  # bytes
_CACHE: Cache[str] = TypeAdapter(dict[str, tuple[int, int, str]])  # SHA-256 by image


@dataclass(frozen=True, slots=True)
class GeneratedCaption:
    """Caption of the image files with one content."""

    sha256: str
    size: int  # bytes of the file; only files of such a size are read for their digest
    caption: str
    model: str  # name of the MLLM that wrote it


class Generated:
    """Reader of the captions that `pleinair index --caption` has stored."""

    rank = 35

    def read(self, folder: Folder) -> Iterator[Description]:
        """Yield the stored caption of every image that has one."""
        captions = load_captions(folder.captions) if folder.captions else {}
        if not captions:
            return
        sizes = {entry.size for entry in captions.values()}
        stamps = {image: folder.source.stamp(image) for image in folder.images}
        images = [image for image, stamp in stamps.items() if stamp and stamp[0] in sizes]
        digest_of = partial(_digest, folder.source)
        for image, digest in read_cached(folder, images, "digests", _CACHE, digest_of).items():
            if entry := captions.get(digest):
                yield Description(image, caption=entry.caption, caption_model=entry.model)


class CaptionFile:
    """File of captions that is open for more of them; built by `open_captions`."""

    def __init__(self, path: Path, file: int) -> None:
        self._path, self._file = path, file

    def add(self, caption: GeneratedCaption) -> None:
        """Write a caption to the disk; raise `PleinairError`, and add nothing, if there is no room."""
        line = json.dumps(asdict(caption), ensure_ascii=False).encode() + b"\n"
        end = os.fstat(self._file).st_size
        try:
            if disk_usage(self._path.parent).free < len(line) + RESERVE:
                raise OSError(errno.ENOSPC, "reserve")
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, "short write")
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):  # the rest is ignored by the reader, and cut off by the next writer
                os.ftruncate(self._file, end)
            raise explain(error, self._path) from error


@contextmanager
def open_captions(path: Path) -> Iterator[CaptionFile]:
    """Open a file of captions for writing, without the incomplete last line of an interrupted writer.

    Raises `BadInput` while another process writes captions, `PleinairError` if the file cannot be written.
    """
    lock = FileLock(path.with_suffix(".lock"), timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BadInput(f"Another process is writing captions to {path}.", "Wait for it.") from None
    except OSError as error:
        raise explain(error, path) from error
    try:
        file = _open_for_more(path)
        try:
            yield CaptionFile(path, file)
        finally:
            os.close(file)
    finally:
        lock.release()


def load_captions(path: Path) -> dict[str, GeneratedCaption]:
    """Read the captions by SHA-256; lines that are none, such as an incomplete last one, are ignored."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return {}
    captions = filter(None, map(_caption_of, lines))
    return {caption.sha256: caption for caption in captions}


def _caption_of(line: bytes) -> GeneratedCaption | None:
    try:
        record = json.loads(line)
        caption, model = clean(record["caption"], MAX_CAPTION), clean(record["model"], MAX_TEXT)
        entry = GeneratedCaption(str(record["sha256"]), int(record["size"]), caption, model)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return entry if entry.caption else None


def _open_for_more(path: Path) -> int:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        data = path.read_bytes()
        if (end := data.rfind(b"\n") + 1) < len(data):
            os.ftruncate(file, end)
    except OSError as error:
        raise explain(error, path) from error
    return file


def _digest(files: Files, image: str) -> str:
    data = files.read(image, _MAX_IMAGE + 1)
    if len(data) > _MAX_IMAGE:
        raise OSError(errno.EFBIG, "no caption is stored of so large a file")
    return hashlib.sha256(data).hexdigest()
