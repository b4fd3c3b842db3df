"""Description of an index as JSON beside its vectors: the encoder and the files they are of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, Value

REBUILD = "`pleinair index FOLDER` builds it anew."
READING = 2  # raised when the same file is read as other pixels: its vector is then computed again
_VERSION = 2  # 1 had no checksum of the rows
_FILE = "manifest.json"
_Stamp = tuple[int, int]  # size in bytes, mtime in nanoseconds


class File(Value):
    """State of a library file when it was read."""

    id: str
    sha256: str  # empty if the file could not be read
    size: int
    mtime_ns: int
    notes: tuple[str, ...] = ()  # what was made up for in the file, such as a damaged colour profile
    width: int = 0  # pixels, upright, before the image is reduced; 0 if unknown
    height: int = 0

    @property
    def stamp(self) -> _Stamp:
        """Return size and mtime, as `Item.stamp` does."""
        return self.size, self.mtime_ns


class Skipped(File):
    """Library file that is not a usable image, with the reason."""

    reason: str


class Manifest(Value):
    """Encoder, dimensions and files of an index, the files in the order of the rows."""

    version: int = _VERSION
    encoder: str  # its id identifies model, weights and preprocessing
    dim: int = Field(gt=0)
    count: int = Field(gt=0)
    vectors: str = Field(pattern=r"^vectors-[0-9a-f]{16}\.faiss$")  # file name beside the manifest
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # of the vectors file
    rows: str = ""  # checksum of which row is which image, by `digest_rows`
    files: tuple[File, ...]
    skipped: tuple[Skipped, ...] = ()
    reading: int = 1
    max_pixels: int = 0  # `library.max_pixels` of the build

    def skips_less(self, max_pixels: int) -> bool:
        """Return whether files that were skipped may be usable under another `library.max_pixels`."""
        return bool(self.skipped) and self.max_pixels != max_pixels

    def stamps(self) -> dict[str, _Stamp]:
        """Return the stamp of every file that was read, skipped ones included."""
        return {file.id: file.stamp for file in (*self.files, *self.skipped)}


def digest_rows(vectors: str, files: Iterable[File]) -> str:
    """Return a checksum of which row of the vectors with the checksum `vectors` is which file."""
    digest = hashlib.sha256(vectors.encode())
    for file in files:
        digest.update(f"\n{file.sha256} {file.size} {file.mtime_ns} {file.id}".encode())
    return digest.hexdigest()


def encoder_of(folder: Path) -> str:
    """Return the id of the encoder of an index, "" if there is no readable index."""
    try:
        return str(json.loads((folder / _FILE).read_bytes())["encoder"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest atomically, which replaces the index."""
    write_whole(folder / _FILE, manifest.model_dump_json(indent=1).encode())


def load_manifest(folder: Path) -> Manifest:
    """Read and check the manifest; raise `BadInput` if there is none, or one of another format."""
    try:
        manifest = Manifest.model_validate_json((folder / _FILE).read_bytes())
    except FileNotFoundError:
        raise BadInput(f"No index in {folder}.", REBUILD) from None
    except OSError as error:
        raise BadInput(f"The index in {folder} cannot be read: {error.strerror}.") from error
    except ValidationError:
        raise BadInput(f"The manifest in {folder} is damaged.", REBUILD) from None
    if manifest.version != _VERSION:
        raise BadInput(f"The index in {folder} has format {manifest.version}; accepted: {_VERSION}.", REBUILD)
    if manifest.count != len(manifest.files):
        counts = f"{manifest.count} images but lists {len(manifest.files)}"
        raise BadInput(f"The manifest in {folder} counts {counts}.", REBUILD)
    return manifest
