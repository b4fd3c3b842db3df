"""Say what an index holds, in plain JSON beside its vectors, so that no other index is taken for it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput, Value

VERSION = 1
FILE = "manifest.json"
REBUILD = "`pleinair index FOLDER` builds it anew."
Stamp = tuple[
    int, int
]  # size in bytes, mtime in nanoseconds: while both stay, the file is taken as unchanged


class File(Value):
    """Identify the state of one library file when it was looked at."""

    id: str
    sha256: str  # empty when the file could not be read at all
    size: int
    mtime_ns: int

    @property
    def stamp(self) -> Stamp:
        """Return what `Library` sees of the file without reading it."""
        return self.size, self.mtime_ns


class Skipped(File):
    """Name a library file that is no usable picture, and why."""

    reason: str


class Manifest(Value):
    """Describe an index: whose vectors, of what, and which files they came from in the order of the rows."""

    version: int = VERSION
    encoder: str  # its id names model, weights and preprocessing
    dim: int = Field(gt=0)
    count: int = Field(gt=0)
    vectors: str = Field(pattern=r"^vectors-[0-9a-f]{16}\.faiss$")  # file name beside the manifest
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # of the vectors file
    files: tuple[File, ...]
    skipped: tuple[Skipped, ...] = ()

    def stamps(self) -> dict[str, Stamp]:
        """Return the stamp of every file that was looked at, skipped ones too."""
        return {file.id: file.stamp for file in (*self.files, *self.skipped)}


class Head(BaseModel):
    """Read of a manifest whose vectors they are, and nothing of its files."""

    encoder: str


def encoder_of(folder: Path) -> str:
    """Give the id of the encoder that an index was made with, "" where there is no index to be read."""
    try:
        return Head.model_validate_json((folder / FILE).read_bytes()).encoder
    except (OSError, ValidationError):
        return ""


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest in one step; from then on the index is the new one."""
    write_whole(folder / FILE, manifest.model_dump_json(indent=1).encode())


def load_manifest(folder: Path) -> Manifest:
    """Read and check the manifest; raise `BadInput` when there is none, or one of another format."""
    try:
        data = (folder / FILE).read_bytes()
    except FileNotFoundError:
        raise BadInput(f"No index in {folder}", REBUILD) from None
    except OSError as error:
        raise BadInput(f"The index in {folder} cannot be read: {error.strerror}.") from error
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError:
        raise BadInput(f"The manifest in {folder} is damaged", REBUILD) from None
    if manifest.version != VERSION:
        raise BadInput(f"The index in {folder} has format {manifest.version}, wanted {VERSION}", REBUILD)
    if manifest.count != len(manifest.files):
        counts = f"{manifest.count} pictures and lists {len(manifest.files)}"
        raise BadInput(f"The manifest in {folder} counts {counts}", REBUILD)
    return manifest
