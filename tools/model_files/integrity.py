"""Completeness of a model's files without loading them: configs, headers of weights, checksums."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pleinair.tools.model_files.variants import select_shard_indexes, select_weights

CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def find_part_faults(folder: Path, name: str, variant: str = "") -> Iterator[str]:
    """Yield the faults of one part: a missing config, unreadable JSON, weights missing or truncated.

    Of weights in several formats, those of `variant` or else the first set are examined.
    """
    configs = sorted(folder.glob("*.json"))
    if not any("config" in path.name for path in configs):
        yield f"{name}: no config"
        return
    names = [path.name for path in folder.iterdir()]
    weights = {folder / weight for weight in select_weights(names, variant)}
    indexes = select_shard_indexes(names, variant)
    for path in configs:
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            yield f"{name}/{path.name}: {error}"
            continue
        if path.name in indexes:
            weights |= {folder / shard for shard in set(content.get("weight_map", {}).values())}
    has_config = (folder / "config.json") in configs
    if has_config and not weights:
        others = [other for other in sorted(names) if other.endswith(".safetensors")]
        hint = f", only {others[0]}: set generator.variant to load such a set" if others else ""
        yield f"{name}: no safetensors weights{hint}"
    elif weights and not has_config:
        yield f"{name}: no config.json"  # some classes then build their largest model, at random
    yield from find_weight_faults(sorted(weights), folder.parent)


def find_weight_faults(paths: Iterable[Path], root: Path) -> Iterator[str]:
    """Yield which safetensors files are missing, or not as long as their headers say."""
    for path in paths:
        name = path.relative_to(root).as_posix()
        if not path.is_file():
            yield f"{name}: missing"
        elif not (expected := _expected_size(path)):
            yield f"{name}: not safetensors"
        elif expected != (size := path.stat().st_size):
            yield f"{name}: {size:,} bytes instead of {expected:,}"


def _expected_size(path: Path) -> int:
    """Return the size in bytes according to a safetensors header, 0 for a file of another format."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if length <= path.stat().st_size else {}
            ends = [row["data_offsets"][1] for key, row in header.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return 0
    return 8 + length + max(ends, default=0) if ends else 0


def find_checksum_faults(folder: Path) -> Iterator[str]:
    """Yield the files that differ from the hub cache's names for them: SHA-256, or Git's SHA-1 if small."""
    for path in sorted(folder.rglob("*")):
        expected = path.resolve().name if path.is_symlink() else ""
        if path.is_file() and CHECKSUM.fullmatch(expected) and _digest(path, len(expected)) != expected:
            yield f"{path.relative_to(folder).as_posix()}: differs from its checksum"


def _digest(path: Path, digits: int) -> str:
    digest = hashlib.sha256() if digits == 64 else hashlib.sha1(usedforsecurity=False)
    if digits == 40:
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()
