"""Local folders of models, and ids of their content."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

from pleinair.tools.storage.files import checked_path
from pleinair.tools.types import BadInput

SHIPPED = Path(__file__).parents[1] / "pocket" / "weights"
RENAMED = {"pocket/eyes": "pocket/detector"}  # accepted with a warning until 1.0
SMALL = 2**30  # bytes of a folder up to which all are read for its id


def locate(folder: str, setting: str = "") -> Path:
    """Return a model folder; `pocket/NAME` is in this package.

    Raise `BadInput`, with the name of the setting, if there is none.
    """
    if current := RENAMED.get(folder):
        warnings.warn(f"{folder} is now called {current}", DeprecationWarning, stacklevel=2)
        folder = current
    kind, _, name = folder.partition("/")
    path = SHIPPED / name if kind == "pocket" else checked_path(folder, "folder")
    if not path.is_dir():
        prefix = f"{setting} = {folder!r}: " if setting else ""
        raise BadInput(f"{prefix}No model folder at {str(path)!r} (set as {folder!r}).")
    return path


def checksum(folder: Path) -> str:
    """Return twelve hexadecimal digits for all safetensors and JSON files below a folder."""
    digest = hashlib.sha256()
    for path in _content(folder):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def identity(folder: Path) -> str:
    """Return an id of a folder's content: the checksum of a small one, else one without the tensors' values.

    The latter is marked `~`. It covers the JSON files, and of each safetensors file the header (names, types
    and shapes of the tensors) and the size, so a fine-tuned copy of equal size has the id of its original.
    """
    files = _content(folder)
    if sum(path.stat().st_size for path in files) <= SMALL:
        return checksum(folder)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(read_header(path))
    return f"~{digest.hexdigest()[:12]}"


def _content(folder: Path) -> list[Path]:
    paths = (path for path in sorted(folder.rglob("*")) if path.suffix in {".safetensors", ".json"})
    return [path for path in paths if path.is_file()]  # a pipe would block


def read_header(path: Path) -> bytes:
    """Return a JSON file, or the header of a safetensors file, whose length is in its first eight bytes."""
    if path.suffix == ".json":
        return path.read_bytes()
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(min(length, SMALL))
