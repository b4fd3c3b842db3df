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
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import disk_usage

from filelock import FileLock, Timeout

from pleinair.tools.retrieval.readers.folder import Description, Folder
from pleinair.tools.retrieval.readers.records import MAX_CAPTION, MAX_TEXT, clean
from pleinair.tools.storage.files import RESERVE, explain, write_whole
from pleinair.tools.types import BadInput, PleinairError

NAME = "generated"  # of the reader

_Digest = tuple[int, int, str]  # size, mtime in nanoseconds, SHA-256


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
        for image, digest in _digests(folder, {entry.size for entry in captions.values()}).items():
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
    with lock:
        file = _open_for_more(path)
        try:
            yield CaptionFile(path, file)
        finally:
            lock.release()
            os.close(file)


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


def _digests(folder: Folder, sizes: set[int]) -> dict[str, str]:
    """Return the SHA-256 of the images with one of the sizes, from the cache where a file has not changed."""
    name = f"{hashlib.sha256(os.fsencode(folder.root)).hexdigest()[:16]}-digests.json"
    path = folder.cache and folder.cache / name
    stored = _load_digests(path) if path else {}
    images = [image for image in folder.images if _size(folder.root / image) in sizes]
    current: dict[str, _Digest] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            jobs = pool.map(lambda image: _digest(folder.root / image, stored.get(image)), images)
            for done, (image, digest) in enumerate(zip(images, jobs, strict=True), start=1):
                if digest:
                    current[image] = digest
                if folder.on_progress and digest is not stored.get(image):
                    folder.on_progress(done, len(images))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if path and current != stored:
        with suppress(OSError, PleinairError):  # the next use reads the files again
            write_whole(path, json.dumps(current).encode())
    return {image: digest for image, (_, _, digest) in current.items()}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(path: Path, earlier: _Digest | None) -> _Digest | None:
    try:
        status = path.stat()
        if earlier and earlier[:2] == (status.st_size, status.st_mtime_ns):
            return earlier
        with path.open("rb") as file:
            return status.st_size, status.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _load_digests(path: Path) -> Mapping[str, _Digest]:
    try:
        content = json.loads(path.read_bytes()).items()
        return {image: (int(size), int(mtime), str(digest)) for image, (size, mtime, digest) in content}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
