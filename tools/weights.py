"""Where a model's folder is, and which bytes are in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pleinair.tools.types import BadInput

SHIPPED = Path(__file__).parent / "pocket" / "weights"


def locate(folder: str) -> Path:
    """Find a model folder; `pocket/NAME` is one that ships inside this package.

    Raises:
        BadInput: there is no such folder.
    """
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
