"""Description of an index as JSON beside its files: which they are, of which encoder, under one checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from operator import not_
from pathlib import Path

from pydantic import Field, ValidationError

from pleinair.tools.callbacks import no_callback
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, Value

REBUILD = "`pleinair index FOLDER` builds it anew."
READING = 3  # raised when the same file is read as other pixels: its vector is then computed again
FILE = "manifest.json"
_VERSION = 3  # 1 had no checksum of the rows, 2 listed the images itself
_BLOCK = 2**20  # bytes read at a time
_HEAD = 2**18  # bytes; all of a small index
_Stamp = tuple[int, int]  # size in bytes, mtime in nanoseconds


class File(Value):
    """State of a library file when it was read."""

    id: str
    sha256: str  # empty if the file could not be read
    size: int
    mtime_ns: int
    notes: tuple[str, ...] = ()  # what was made up for in the file, such as a damaged colour profile
    width: int = 0  # pixels, upright, before the image is reduced; 0: not known
    height: int = 0

    @property
    def stamp(self) -> _Stamp:
        """Return size and mtime, as `Item.stamp` does."""
        return self.size, self.mtime_ns


class Skipped(File):
    """Library file that is not a usable image, with the reason."""

    reason: str


class Check(Value):
    """Size and checksums of a file of an index."""

    size: int  # bytes
    sha256: str
    head: str  # SHA-256 of its first `_HEAD` bytes, which are compared whenever the index is opened


class Manifest(Value):
    """Files of an index and what they are of; replacing the manifest replaces the index."""

    version: int = _VERSION
    encoder: str  # its id identifies model, weights and preprocessing
    dim: int = Field(gt=0)
    count: int = Field(gt=0)  # images with a vector
    vectors: str = Field(pattern=r"^vectors-[0-9a-f]{16}\.faiss$")  # file name beside the manifest
    catalogue: str = Field(pattern=r"^catalogue-[0-9a-f]{16}\.sqlite$")
    words: str = Field(default="", pattern=r"^(words-[0-9a-f]{16})?$")  # folder; "": no caption has a word
    files: dict[str, Check]  # of all of them by path beside the manifest
    checksum: str  # of `files` and everything above, by `_checksum_of`
    rows: str  # checksum of which row is which image, by `digest_rows`
    library: str  # checksum of the images and their metadata, `Library.digest`
    reading: int = 1
    max_pixels: int = 0  # `library.max_pixels` of the build
    skipped: int = 0  # files that are not usable images
    # of very many vectors: what `write_lists` wrote, chose and measured
    lists: str = Field(default="", pattern=r"^(vectors-[0-9a-f]{16}\.ivf)?$", exclude_if=not_)
    candidates: int = Field(default=0, exclude_if=not_)
    recall: float = Field(default=0.0, exclude_if=not_)

    def skips_less(self, max_pixels: int) -> bool:
        """Return whether files that were skipped may be usable under another `library.max_pixels`."""
        return bool(self.skipped) and self.max_pixels != max_pixels


def _checksum_of(manifest: Manifest) -> str:
    """Return the checksum of all fields of a manifest but itself."""
    return hashlib.sha256(manifest.model_dump_json(exclude={"checksum"}).encode()).hexdigest()


def digest_rows(vectors: str, files: Iterable[File]) -> str:
    """Return a checksum of which row of the vectors with the checksum `vectors` is which file."""
    digest = hashlib.sha256(vectors.encode())
    for file in files:
        digest.update(f"\n{file.sha256} {file.size} {file.mtime_ns} {file.id}".encode())
    return digest.hexdigest()


def check_of(path: Path) -> Check:
    """Return the size and the checksums of a file; raise `BadInput` if it cannot be read."""
    digest, head, size = hashlib.sha256(), "", 0
    for block in _blocks(path):
        head = head or hashlib.sha256(block[:_HEAD]).hexdigest()
        digest.update(block)
        size += len(block)
    return Check(size=size, sha256=digest.hexdigest(), head=head)


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}).", REBUILD) from error


def encoder_of(folder: Path) -> str:
    """Return the id of the encoder of an index, "" if there is no readable index."""
    try:
        return str(json.loads((folder / FILE).read_bytes())["encoder"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest with its checksum atomically, which replaces the index."""
    signed = manifest.model_copy(update={"checksum": _checksum_of(manifest)})
    write_whole(folder / FILE, signed.model_dump_json(indent=1).encode())


def load_manifest(folder: Path) -> Manifest:
    """Read and check the manifest; raise `BadInput` if there is none, or one of another format."""
    try:
        data = (folder / FILE).read_bytes()
    except FileNotFoundError:
        raise BadInput(f"No index in {folder}.", REBUILD) from None
    except OSError as error:
        raise BadInput(f"The index in {folder} cannot be read: {error.strerror}.") from error
    if (version := _version_of(data)) not in (None, _VERSION):
        raise BadInput(f"The index in {folder} has format {version}; accepted: {_VERSION}.", REBUILD)
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError:
        raise BadInput(f"The manifest in {folder} is damaged.", REBUILD) from None
    if manifest.checksum != _checksum_of(manifest):
        raise BadInput(f"The manifest in {folder} has another checksum than it states.", REBUILD)
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare the sizes and the beginnings of an index's files, in constant time; raise `BadInput`."""
    for name, expected in manifest.files.items():
        path = folder / name
        try:
            with path.open("rb") as file:
                size, head = os.fstat(file.fileno()).st_size, hashlib.sha256(file.read(_HEAD)).hexdigest()
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror}).", REBUILD) from error
        if size != expected.size:
            raise BadInput(f"{path} has {size} bytes, its manifest states {expected.size}.", REBUILD)
        _require_equal(path, head, expected.head)


def verify_files(folder: Path, on_progress: Callable[[int, int], None] = no_callback) -> int:
    """Compare every byte of an index's files with the checksums, and return their number.

    `on_progress` receives bytes read and in total and may raise to stop. Raise `BadInput` for the first file
    that differs or is missing.
    """
    manifest, done = load_manifest(folder), 0
    check_files(folder, manifest)
    total = sum(check.size for check in manifest.files.values())
    for name, expected in manifest.files.items():
        digest = hashlib.sha256()
        for block in _blocks(folder / name):
            digest.update(block)
            done += len(block)
            on_progress(done, total)
        _require_equal(folder / name, digest.hexdigest(), expected.sha256)
    return done


def _require_equal(path: Path, actual: str, expected: str) -> None:
    if actual != expected:
        text = f"{path} has the checksum {actual[:16]}…, its manifest {expected[:16]}…."
        raise BadInput(text, REBUILD)


def _version_of(data: bytes) -> object:
    """Return the version that a manifest states, None for what is none."""
    try:
        return json.loads(data)["version"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
