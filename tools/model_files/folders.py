"""Where a model's folder is, and which bytes are in it."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

from pleinair.tools.types import BadInput

SHIPPED = Path(__file__).parents[1] / "pocket" / "weights"
RENAMED = {"pocket/eyes": "pocket/detector"}  # accepted with a warning until 1.0
SMALL = 2**30  # bytes that are read whole to name a folder


def locate(folder: str) -> Path:
    """Find a model folder; `pocket/NAME` is one that ships inside this package.

    Raises:
        BadInput: there is no such folder.
    """
    if new := RENAMED.get(folder):
        warnings.warn(f"{folder} is now called {new}", DeprecationWarning, stacklevel=2)
        folder = new
    kind, _, name = folder.partition("/")
    path = SHIPPED / name if kind == "pocket" else Path(folder).expanduser()
    if not path.is_dir():
        raise BadInput(f"No model folder at {str(path)!r} (asked for {folder!r}).")
    return path


def checksum(folder: Path) -> str:
    """Digest the safetensors and JSON files below a folder, in twelve hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".safetensors", ".json"}:
            digest.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def identity(folder: Path) -> str:
    """Name a folder by what is in it: by all bytes where they are few, else without the tensors' values.

    The short form is marked `~`. It reads the JSON files, and of each safetensors file the header (names,
    types and shapes of the tensors) and the size, so a fine-tuned copy of one size looks like its original.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in {".safetensors", ".json"}]
    if sum(path.stat().st_size for path in files) <= SMALL:
        return checksum(folder)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(head(path))
    return f"~{digest.hexdigest()[:12]}"


def head(path: Path) -> bytes:
    """Give a JSON file, or the header of a safetensors file, whose length is in its first eight bytes."""
    if path.suffix == ".json":
        return path.read_bytes()
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(min(length, SMALL))
