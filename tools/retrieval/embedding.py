"""Embed a library's images in small batches, each stored on disk as soon as it is complete.

It is a pipeline: threads read and hash files ahead and have them decoded and reduced by the processes of
`images.sandbox`, small files many at a time, while the encoder embeds the batch before. An image is
identified by the SHA-256 of its file: vectors of an earlier index, or of a build that was killed, are used
again, whatever the file is called now. Not covered: encoders whose vectors depend on the rest of the batch.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pleinair.tools.deadline import check_deadline
from pleinair.tools.images.decoding import NOTES, ReadOptions
from pleinair.tools.images.gpu_jpeg import decode_plain
from pleinair.tools.images.reading import BadPicture, is_blank
from pleinair.tools.images.sandbox import TOGETHER, Read, read_many
from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.library import Library
from pleinair.tools.retrieval.manifest import File, Skipped
from pleinair.tools.retrieval.shards import Embedded, write_shard
from pleinair.tools.types import Encoder, ModelFault

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.types import Vectors

    _Read = tuple[File, Image | None]  # no image of a file that is embedded already or skipped

BATCH_PIXELS = 64_000_000  # decoded images in memory at once: 192 MB
_READERS = (os.cpu_count() or 1) + 1  # threads that read ahead: one a process that decodes, one at the files
_TOGETHER_BYTES = 512 * 1024  # of the files that one thread reads together
_GPU_BYTES = 16 * 2**20  # the same where a GPU decodes them
SANDBOX = "sandbox"  # name of the decoder that takes untrusted files
# Images come reduced to this many times the encoder's own size at least: see evals/LOG.md
_FINER = 1.5


@dataclass
class _Batch:
    """Images to embed together, by SHA-256 so that copies are embedded once, and all files of them."""

    images: dict[str, Image] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)

    def add(self, file: File, image: Image | None, embedded: Embedded) -> None:
        """Add a usable file that has no vector yet."""
        if isinstance(file, Skipped) or file.sha256 in embedded.vectors:
            return
        if image is not None:
            self.images.setdefault(file.sha256, image)
        self.files.append(file)

    def is_full(self, size: int) -> bool:
        pixels = sum(image.width * image.height for image in self.images.values())
        return len(self.images) >= size or pixels >= BATCH_PIXELS


class _Blocks:
    """Blocks of `size` items, counted one by one."""

    def __init__(self, size: int) -> None:
        self._size, self._done, self._new = size, 0, 0

    def ends(self, *, is_new: bool) -> bool:
        """Count an item; return whether it is the last one of a block of which half the items are new."""
        self._done += 1
        self._new += is_new
        if self._done % self._size:
            return False
        new, self._new = self._new, 0
        return 2 * new >= self._size


def embed_library(
    library: Library,
    encoder: Encoder,
    embedded: Embedded,
    shards: Path | None,
    *,
    batch_size: int,
    on_progress: Callable[[int, int], None],
) -> None:
    """Complete `embedded` for every item of the library, and write a shard file into `shards` for each batch.

    `on_progress(done, total)` counts images and may raise to stop; the finished batches stay in `shards`
    (None: nowhere). A batch has images of one block of `batch_size` items of the library, so that a part of
    the library that begins with a block has the same batches as all of it; only where few of a block's items
    are new, those of several blocks are joined. Raise `ModelFault` if the encoder's rows are not one finite
    unit vector an image.
    """
    total, blocks = len(library.items), _Blocks(batch_size)
    batch, contents = _Batch(), {file.sha256: file for file in embedded.files.values() if file.width}
    options = ReadOptions(round(_FINER * getattr(encoder, "image_side", 0)), library.max_pixels)
    decoder = getattr(encoder, "jpeg_decoder", SANDBOX)
    with closing(_read_ahead(library, embedded, options, batch_size, decoder)) as reads:
        for done, read in enumerate(reads, start=1):
            check_deadline()
            if read is not None:
                file, image = read
                if image is None:
                    file = _described(file, contents)
                embedded.files[file.id] = file
                contents.setdefault(file.sha256, file)
                batch.add(file, image, embedded)
            if blocks.ends(is_new=read is not None) or batch.is_full(batch_size):
                _finish(batch, encoder, embedded, shards, library.max_pixels)
                batch = _Batch()
                on_progress(done, total)
    _finish(batch, encoder, embedded, shards, library.max_pixels)
    on_progress(total, total)


def _read_ahead(
    library: Library, embedded: Embedded, options: ReadOptions, batch_size: int, decoder: str
) -> Generator[_Read | None, None, None]:
    """Yield the items' files in order, read ahead on threads; None for unchanged files."""
    waiting: deque[Future[list[_Read]] | None] = deque()
    # files of one group are small; unreduced images take much memory
    ahead = max(_READERS, batch_size) if options.side else _READERS
    files = 0

    def first() -> Iterator[_Read | None]:
        reading = waiting.popleft()
        yield from reading.result() if reading else (None,)

    pool = ThreadPoolExecutor(_READERS)
    try:
        for group in _groups(library, embedded, _TOGETHER_BYTES if decoder == SANDBOX else _GPU_BYTES):
            waiting.append(pool.submit(_read, library, group, embedded, options, decoder) if group else None)
            files += len(group)
            while files > ahead and len(waiting) > 1:
                for read in first():
                    files -= read is not None
                    yield read
        while waiting:
            yield from first()
    finally:
        pool.shutdown(cancel_futures=True)


def _groups(library: Library, embedded: Embedded, most: int) -> Iterator[list[Item]]:
    """Yield the new items in groups for one thread each, and an empty list for each unchanged one."""
    group, size = list[Item](), 0
    for item in library.items.values():
        is_new = embedded.file(item) is None
        if group and (not is_new or size + item.size > most or len(group) == TOGETHER):
            yield group
            group, size = [], 0
        if is_new:
            group.append(item)
            size += item.size
        else:
            yield []
    if group:
        yield group


def _read(
    library: Library, items: list[Item], embedded: Embedded, options: ReadOptions, decoder: str
) -> list[_Read]:
    """Read and hash files, and decode those that have no vector yet."""
    files = [_hashed(library, item, embedded, options) for item in items]
    images = iter(_decoded([data for _, data in files if data is not None], options, decoder))
    return [(file, None) if data is None else _usable(file, next(images)) for file, data in files]


def _decoded(files: list[bytes], options: ReadOptions, decoder: str) -> list[Read | BadPicture]:
    """Decode files in the sandbox, but plain JPEGs on the GPU if that is the decoder."""
    reads = [None] * len(files) if decoder == SANDBOX else decode_plain(files, options, decoder)
    others = iter(read_many([data for data, read in zip(files, reads, strict=True) if not read], options))
    return [read or next(others) for read in reads]


def _hashed(
    library: Library, item: Item, embedded: Embedded, options: ReadOptions
) -> tuple[File, bytes | None]:
    """Return a file and its bytes, None if they need not be decoded."""
    facts: dict[str, Any] = {"id": item.id, "size": item.size, "mtime_ns": item.mtime_ns}
    try:
        data = library.read(item, options)
    except BadPicture as error:
        return Skipped(**facts, sha256="", reason=str(error)), None
    file = File(**facts, sha256=hashlib.sha256(data).hexdigest())
    return file, None if file.sha256 in embedded.vectors else data


def _usable(file: File, read: Read | BadPicture) -> _Read:
    """Return a decoded file with its notes and its image, a skipped one with the reason."""
    if isinstance(read, BadPicture):
        return Skipped(**file.model_dump(), reason=str(read)), None
    width, height = read.size
    if is_blank(read.image):
        blank = file.model_copy(update={"width": width, "height": height})
        reason = "one colour all over, after transparency is laid on white"
        return Skipped(**blank.model_dump(), reason=reason), None
    notes = tuple(text for note, text in NOTES.items() if note in read.note)
    return file.model_copy(update={"notes": notes, "width": width, "height": height}), read.image


def _described(file: File, contents: Mapping[str, File]) -> File:
    """Return a file that was not decoded with what is known of another one with the same content."""
    same = contents.get(file.sha256)
    if isinstance(file, Skipped) or same is None or isinstance(same, Skipped):
        return file
    return file.model_copy(update={"notes": same.notes, "width": same.width, "height": same.height})


def _finish(
    batch: _Batch, encoder: Encoder, embedded: Embedded, shards: Path | None, max_pixels: int
) -> None:
    if not batch.images:
        return
    vectors = _encode(encoder, list(batch.images.values()))
    earlier = next(iter(embedded.vectors.values()), vectors[0])
    if earlier.shape != vectors[0].shape:
        shapes = f"{earlier.shape} earlier and {vectors[0].shape} now"
        raise ModelFault(f"Encoder `{encoder.id}` returned vectors {shapes}: new weights need a new id.")
    new = dict(zip(batch.images, vectors, strict=True))
    if shards is not None:
        write_shard(shards, encoder.id, max_pixels, batch.files, new)
    embedded.vectors.update(new)


def _encode(encoder: Encoder, images: list[Image]) -> Vectors:
    vectors = np.ascontiguousarray(encoder.encode_images(images), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(images):
        raise ModelFault(f"Encoder `{encoder.id}` returned {vectors.shape} for {len(images)} images.")
    if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):  # false for NaN too
        raise ModelFault(f"Encoder `{encoder.id}` returned vectors that are not finite and of length 1.")
    return vectors
