"""Vectors of image files, each computed once: they are cached on the disk, and read in batches."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pleinair.evals.scores.items import OnProgress
from pleinair.tools.callbacks import no_callback
from pleinair.tools.images.sandbox import read_untrusted
from pleinair.tools.storage.files import stamp_of
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Vectors

BATCH = 32  # images that are open at once
PIXELS = 48_000_000  # 144 MB as RGB
_ROWS = 512  # vectors read at once
_TABLE = """create table if not exists vectors (
    encoder text, path text, size integer, mtime_ns integer, vector blob, primary key (encoder, path)
) without rowid"""
_READ = "select size, mtime_ns, vector from vectors where encoder = ? and path = ?"
_WRITE = "insert or replace into vectors values (?, ?, ?, ?, ?)"


class ImageEncoder(Protocol):
    """Model that embeds RGB images; every `Encoder` is one."""

    @property
    def id(self) -> str:
        """Model and weights."""

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Return float32 [n, dim]."""


class Features:
    """Vectors of image files by one encoder, cached under the encoder's id, the file and its stamp.

    Memory holds at most `BATCH` images and the vectors of `_ROWS` files, whatever their number. Not covered:
    a file that changes and keeps its size and time.
    """

    def __init__(self, encoder: ImageEncoder, folder: Path, pixels: int = PIXELS) -> None:
        """Keep the vectors in a folder, which is created at the first use; processes may share it.

        Args:
            encoder: of the images.
            folder: of the cache.
            pixels: of images that are open at once; the last one of a batch may exceed them.
        """
        self.encoder, self._folder, self._pixels = encoder, folder, pixels
        self.mean = lru_cache(maxsize=64)(self._mean)  # images of one class follow each other

    def add(self, paths: Iterable[Path], on_progress: OnProgress = no_callback) -> None:
        """Embed the files that are not in the cache.

        Raises:
            BadInput: a file does not exist.
            BadPicture: a file is no image that can be read.
            PleinairError: the cache cannot be written.
        """
        files = list(dict.fromkeys(map(os.path.realpath, paths)))
        with self._open() as db:
            missing = [file for file in files if self._find(db, file) is None]
            done = len(files) - len(missing)
            on_progress(done, len(files))
            for keys, images in _in_batches(missing, self._pixels):
                vectors = np.ascontiguousarray(self.encoder.encode_images(images), dtype=np.float32)
                rows = [
                    (self.encoder.id, *key, row.tobytes()) for key, row in zip(keys, vectors, strict=True)
                ]
                with db:
                    db.executemany(_WRITE, rows)
                done += len(keys)
                on_progress(done, len(files))

    def rows(self, paths: Sequence[Path]) -> Vectors:
        """Return the vectors of files in their order, [n, dim]; those not in the cache are computed."""
        for _ in range(2):
            with self._open() as db:
                vectors = [self._find(db, os.path.realpath(path)) for path in paths]
            if all(vector is not None for vector in vectors):
                break
            self.add(paths)
        return np.stack([vector for vector in vectors if vector is not None])

    def stream(self, paths: Sequence[Path]) -> Iterator[Vectors]:
        """Yield the vectors of files in their order, `_ROWS` at a time."""
        for start in range(0, len(paths), _ROWS):
            yield self.rows(paths[start : start + _ROWS])

    def _mean(self, paths: tuple[Path, ...]) -> Vectors:
        """Return the mean of the files' vectors: [dim], float32."""
        total = sum(rows.sum(axis=0, dtype=np.float64) for rows in self.stream(paths))
        return np.asarray(total / len(paths), dtype=np.float32)

    def _find(self, db: sqlite3.Connection, file: str) -> Vectors | None:
        row = db.execute(_READ, (self.encoder.id, file)).fetchone()
        return np.frombuffer(row[2], dtype=np.float32) if row and row[:2] == _stamp(file) else None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        path = self._folder / "vectors.sqlite"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(path, timeout=60)
            try:
                db.execute(_TABLE)
                yield db
            finally:
                db.close()
        except (OSError, sqlite3.Error) as error:
            raise PleinairError(
                f"{path} cannot be used: {error}", "Free disk space, or remove it."
            ) from error


def _stamp(file: str) -> tuple[int, int]:
    """Return a file's size and time; raise `BadInput` if there is none."""
    if stamp := stamp_of(file):
        return stamp
    raise BadInput(f"{file} is not a file.")


def _in_batches(
    files: Sequence[str], pixels: int
) -> Iterator[tuple[list[tuple[str, int, int]], list[Image]]]:
    """Yield files, as (path, size, mtime), with their images in full size: few at once, fewer if large."""
    keys: list[tuple[str, int, int]] = []
    images: list[Image] = []
    for file in files:
        keys.append((file, *_stamp(file)))
        images.append(read_untrusted(file))
        if len(keys) == BATCH or sum(image.width * image.height for image in images) > pixels:
            yield keys, images
            keys, images = [], []
    if keys:
        yield keys, images
