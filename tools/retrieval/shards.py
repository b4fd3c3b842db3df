"""Files of embedded images: the batches that a build has finished, by one process or by several machines.

A shard is an .npz file with the vectors of a batch, and with what they are of: the encoder, how files were
read, and each file's id, size, time and SHA-256. It needs nothing beside it, so that several processes may
write into one folder, and shards may be copied and read in any order.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from pleinair.tools.retrieval.item import Item
from pleinair.tools.retrieval.manifest import READING, File, Skipped
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENDING = ".npz"
# Cosine from which two vectors of one file count as the same: number formats and devices round differently
_SAME = 0.99


@dataclass
class Embedded:
    """Vectors by the SHA-256 of their files, and the files by library id, skipped ones included."""

    vectors: MutableMapping[str, NDArray[np.float32]] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)

    def file(self, item: Item) -> File | None:
        """Return the file of an item whose size and time have not changed."""
        file = self.files.get(item.id)
        if file is None or file.stamp != item.stamp or not self._is_complete(file):
            return None
        return file

    def has(self, item: Item) -> bool:
        """Return whether an item of this id and size is embedded, or skipped, whatever its time."""
        file = self.files.get(item.id)
        return file is not None and file.size == item.size and self._is_complete(file)

    def _is_complete(self, file: File) -> bool:
        return bool(file.sha256) and (isinstance(file, Skipped) or file.sha256 in self.vectors)

    def add(self, shard: Shard, max_pixels: int) -> None:
        """Add the files of a shard; skipped ones only if `library.max_pixels` was the same."""
        for file, vector in shard.files:
            self.files[file.id] = file
            self.vectors[file.sha256] = vector
        if shard.max_pixels == max_pixels:
            for skipped in shard.skipped:
                self.files.setdefault(skipped.id, skipped)

    def join(self, other: Embedded, items: Mapping[str, Item]) -> None:
        """Add what another one has and this one has not, or not for the present state of an item.

        Other files are added too, as copies of items.
        """
        for sha256, vector in other.vectors.items():
            if sha256 not in self.vectors:
                self.vectors[sha256] = vector
        for id, file in other.files.items():
            if id not in self.files or (id in items and self.file(items[id]) is None):
                self.files[id] = file


@dataclass(frozen=True)
class Shard:
    """Content of a shard file."""

    encoder: str
    reading: int  # `READING` of its writer
    max_pixels: int  # `library.max_pixels`
    files: list[tuple[File, NDArray[np.float32]]]
    skipped: list[Skipped]


def write_shard(
    folder: Path,
    encoder_id: str,
    max_pixels: int,
    files: Iterable[File],
    vectors: Mapping[str, NDArray[np.float32]],
) -> None:
    """Write a shard of some files, whose vectors are found by their SHA-256; raise `DiskFull` without room.

    A power cut may cost it, the death of the process does not.
    """
    store_shard(folder, shard_bytes(encoder_id, max_pixels, files, vectors))


def store_shard(folder: Path, data: bytes) -> None:
    """Write the bytes of a shard under a new name; raise `DiskFull` without room."""
    write_whole(folder / f"{uuid4().hex}{ENDING}", data, durable=False)


def shard_bytes(
    encoder_id: str,
    max_pixels: int,
    files: Iterable[File],
    vectors: Mapping[str, NDArray[np.float32]],
) -> bytes:
    """Return a shard as `write_shard` writes it."""
    rows: dict[str, int] = {}
    usable, skipped = [], []
    for file in files:
        if isinstance(file, Skipped):
            skipped.append(file.model_dump())
        else:
            usable.append((rows.setdefault(file.sha256, len(rows)), file.model_dump()))
    stacked = np.stack([vectors[sha256] for sha256 in rows]) if rows else np.zeros((0, 0), np.float32)
    facts = {"encoder": encoder_id, "reading": READING, "max_pixels": max_pixels}
    about = json.dumps({**facts, "files": usable, "skipped": skipped}).encode()
    data = io.BytesIO()
    np.savez(data, vectors=stacked, about=np.frombuffer(about, np.uint8))
    return data.getvalue()


def read_shard(path: Path) -> Shard | None:
    """Read a shard; None for a damaged one."""
    try:
        return parse_shard(path.read_bytes())
    except OSError:
        return None


def parse_shard(content: bytes) -> Shard | None:
    """Return what the bytes of a shard have; None for damaged ones."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as data:  # a pickle is code
            vectors, about = data["vectors"], json.loads(data["about"].tobytes())
        if len(vectors) and not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
            return None
        return Shard(
            encoder=str(about["encoder"]),
            reading=int(about["reading"]),
            max_pixels=int(about["max_pixels"]),
            files=[(File.model_validate(file), vectors[row]) for row, file in about["files"]],
            skipped=[Skipped.model_validate(file) for file in about["skipped"]],
        )
    except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def load_shards(folder: Path, encoder_id: str, max_pixels: int) -> Embedded:
    """Return what the shards in a folder by the same encoder have; others are ignored."""
    embedded = Embedded()
    for path in sorted(folder.glob(f"*{ENDING}")):  # a damaged one costs one batch of work, nothing else
        shard = read_shard(path)
        if shard and (shard.encoder, shard.reading) == (encoder_id, READING):
            embedded.add(shard, max_pixels)
    return embedded


def require_alike(folder: Path, encoder_id: str) -> Iterator[tuple[Path, Shard | None]]:
    """Yield the shards in a folder, None for a damaged one; raise `BadInput` for another encoder's."""
    for path in sorted(folder.glob(f"*{ENDING}")):
        shard = read_shard(path)
        if shard and shard.encoder != encoder_id:
            text = f"{path} has vectors of the encoder {shard.encoder}, not of {encoder_id}."
            raise BadInput(text, "Choose the profile or the encoder it was made with, or another folder.")
        if shard and shard.reading != READING:
            text = f"{path} is of a version of pleinair that reads images otherwise."
            raise BadInput(text, "Embed the shards again with this version, in another folder.")
        yield path, shard


def join_shards(
    folders: Sequence[Path], encoder_id: str, items: Mapping[str, Item], max_pixels: int
) -> tuple[Embedded, list[Path]]:
    """Return what the shards in some folders have, and the paths of damaged ones, which are left out.

    Raises `BadInput` for a folder without shards, shards of another encoder or of other images than `items`,
    and two vectors of one file that differ by more than rounding.
    """
    joined, origins, damaged = Embedded(), dict[str, Path](), list[Path]()
    for folder in folders:
        shards = list(_shards_in(folder, encoder_id))
        damaged += [path for path, shard in shards if shard is None]
        for path, shard in shards:
            if shard is not None:
                _require_same(joined, origins, path, shard)
                joined.add(shard, max_pixels)
    if not any(id in items for id in joined.files):
        example = min(joined.files, default="")
        text = f"The shards in {' and '.join(map(str, folders))} are of other images, such as `{example}`."
        raise BadInput(text, "Name the library they were made of, with the same folders.")
    return joined, damaged


def _shards_in(folder: Path, encoder_id: str) -> Iterator[tuple[Path, Shard | None]]:
    shards = list(require_alike(folder, encoder_id))
    if not any(shard for _, shard in shards):
        fault = "no shards" if not shards else "only damaged shards"
        text = f"{folder}: {'no such folder' if not folder.is_dir() else f'{fault} in it'}"
        raise BadInput(text, "`pleinair index FOLDER --shard I/N --out DIR` writes shards into DIR.")
    return iter(shards)


def _require_same(joined: Embedded, origins: dict[str, Path], path: Path, shard: Shard) -> None:
    """Raise `BadInput` for a file with another vector in an earlier shard."""
    for file, vector in shard.files:
        earlier = joined.vectors.get(file.sha256)
        if earlier is not None and (len(earlier) != len(vector) or float(earlier @ vector) < _SAME):
            text = f"`{file.id}` has another vector in {path} than in {origins[file.sha256]}."
            raise BadInput(text, "One of them is damaged or of other weights: remove it and merge again.")
        origins.setdefault(file.sha256, path)
