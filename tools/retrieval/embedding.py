"""Turn a library's pictures into vectors in small batches, each kept on disk as soon as it is done.

A picture is known by the SHA-256 of its file: vectors of an earlier index, or of a build that was killed,
are used again, whatever the file is called now. Not covered: encoders whose vectors depend on the rest of
the batch.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from pleinair.tools.images.reading import BadPicture, read_bytes
from pleinair.tools.images.sandbox import read_untrusted
from pleinair.tools.retrieval.library import Item, Library
from pleinair.tools.retrieval.manifest import File, Skipped
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import Encoder, ModelFault

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from pleinair.tools.types import Vectors

BATCH_PIXELS = 64_000_000  # decoded pictures held at once: 192 MB
READERS = 4  # threads that read and decode ahead, each one picture


@dataclass(frozen=True)
class Read:
    """Hold what reading one file gave: its SHA-256, and the picture unless it is known or damaged."""

    sha256: str = ""
    image: Image | None = None
    fault: str = ""


@dataclass
class Known:
    """Hold the vectors there are, by the file's SHA-256, and the files they came from."""

    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)  # by library id, skipped ones too

    def file(self, item: Item) -> File | None:
        """Return what is known of an item whose size and time have not changed."""
        file = self.files.get(item.id)
        if file is None or file.stamp != item.stamp or not file.sha256:
            return None
        return file if isinstance(file, Skipped) or file.sha256 in self.vectors else None


@dataclass
class Batch:
    """Collect different pictures until there are enough, by number or by pixels."""

    images: dict[str, Image] = field(default_factory=dict)  # by SHA-256, so that copies are embedded once
    files: list[File] = field(default_factory=list)

    def full(self, size: int) -> bool:
        """Tell whether `size` pictures or `BATCH_PIXELS` are reached."""
        pixels = sum(image.width * image.height for image in self.images.values())
        return len(self.images) >= size or pixels >= BATCH_PIXELS


def embed_library(
    library: Library,
    encoder: Encoder,
    known: Known,
    shards: Path,
    *,
    batch_size: int,
    on_progress: Callable[[int, int], None],
) -> None:
    """Complete `known` for every item of the library, one shard file in `shards` a batch.

    `on_progress(done, total)` counts pictures and may raise to stop; the finished batches stay in `shards`.
    Raise `ModelFault` when the encoder's rows are not one finite unit vector a picture.
    """
    total = len(library.items)
    batch = Batch()
    with closing(_ahead(library, library.items.values(), known)) as reads:
        for done, (item, read) in enumerate(reads):
            if read is not None:
                known.files[item.id] = _sort_in(item, read, known, batch)
            if batch.full(batch_size):
                _finish(batch, encoder, known, shards)
                batch = Batch()
                on_progress(done + 1, total)
    _finish(batch, encoder, known, shards)
    on_progress(total, total)


def load_shards(shards: Path, encoder_id: str, known: Known) -> None:
    """Add the batches that an unfinished build of the same encoder left; others are ignored."""
    for path in sorted(shards.glob("*.npz")):
        for file, vector in _read_shard(path, encoder_id):
            known.files[file.id] = file
            known.vectors[file.sha256] = vector


def _ahead(
    library: Library, items: Iterable[Item], known: Known
) -> Generator[tuple[Item, Read | None], None, None]:
    """Read the items' files a few ahead on threads, and give them in order; None for what is known."""
    waiting: deque[tuple[Item, Future[Read] | None]] = deque()
    pool = ThreadPoolExecutor(READERS)
    try:
        for item in items:
            new = known.file(item) is None
            waiting.append((item, pool.submit(_read, library, item, known) if new else None))
            if len(waiting) > READERS:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _first(waiting: deque[tuple[Item, Future[Read] | None]]) -> tuple[Item, Read | None]:
    item, reading = waiting.popleft()
    return item, reading.result() if reading else None


def _read(library: Library, item: Item, known: Known) -> Read:
    """Read one file, and decode it unless a vector of it is there."""
    digest = ""
    try:
        data = read_bytes(library.path(item.id))
        digest = hashlib.sha256(data).hexdigest()
        return Read(digest, None if digest in known.vectors else read_untrusted(data))
    except BadPicture as error:
        return Read(digest, fault=str(error))


def _sort_in(item: Item, read: Read, known: Known, batch: Batch) -> File:
    """Say what a file is; a usable picture without a vector joins the batch."""
    about = {"id": item.id, "sha256": read.sha256, "size": item.size, "mtime_ns": item.mtime_ns}
    if read.fault:
        return Skipped.model_validate({**about, "reason": read.fault})
    file = File.model_validate(about)
    if read.sha256 not in known.vectors:
        if read.image is not None:
            batch.images.setdefault(read.sha256, read.image)
        batch.files.append(file)
    return file


def _finish(batch: Batch, encoder: Encoder, known: Known, shards: Path) -> None:
    if not batch.images:
        return
    vectors = _encode(encoder, list(batch.images.values()))
    before = next(iter(known.vectors.values()), vectors[0])
    if before.shape != vectors[0].shape:
        shapes = f"{before.shape} earlier and {vectors[0].shape} now"
        raise ModelFault(f"Encoder `{encoder.id}` gave vectors {shapes}: new weights need a new id.")
    _write_shard(shards / f"{uuid4().hex}.npz", encoder.id, batch, vectors)
    known.vectors.update(zip(batch.images, vectors, strict=True))


def _encode(encoder: Encoder, images: list[Image]) -> Vectors:
    vectors = np.ascontiguousarray(encoder.encode_images(images), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(images):
        raise ModelFault(f"Encoder `{encoder.id}` gave {vectors.shape} for {len(images)} pictures.")
    if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):  # false for NaN too
        raise ModelFault(f"Encoder `{encoder.id}` gave vectors that are not finite and of length 1.")
    return vectors


def _write_shard(path: Path, encoder_id: str, batch: Batch, vectors: Vectors) -> None:
    rows = list(batch.images)
    about = {
        "encoder": encoder_id,
        "files": [(rows.index(file.sha256), file.model_dump()) for file in batch.files],
    }
    data = io.BytesIO()
    np.savez(data, vectors=vectors, about=np.frombuffer(json.dumps(about).encode(), np.uint8))
    write_whole(path, data.getvalue())


def _read_shard(path: Path, encoder_id: str) -> Iterator[tuple[File, NDArray[np.float32]]]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as shard:  # a pickle is code
            vectors, about = shard["vectors"], json.loads(shard["about"].tobytes())
        if about["encoder"] != encoder_id:
            return
        found = [(File.model_validate(file), vectors[row]) for row, file in about["files"]]
    except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile):
        return  # a damaged shard costs one batch of work, nothing else
    yield from found
