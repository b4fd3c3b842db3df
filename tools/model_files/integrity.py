"""Whether a model's files are whole, without loading it: configs, the headers of weights, checksums."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pleinair.tools.model_files.variants import chosen, shards

SUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def of_part(folder: Path, name: str, variant: str = "") -> Iterator[str]:
    """Look at one part: it has a config, its JSON can be read, and a model has all of its weights.

    Of weights that are there in several formats, those of `variant` or else the first set are looked at.
    """
    configs = sorted(folder.glob("*.json"))
    if not any("config" in path.name for path in configs):
        yield f"{name}: no config is here"
        return
    names = [path.name for path in folder.iterdir()]
    weights, lists = {folder / one for one in chosen(names, variant)}, shards(names, variant)
    for path in configs:
        try:
            read = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            yield f"{name}/{path.name}: {error}"
            continue
        if path.name in lists:
            weights |= {folder / shard for shard in set(read.get("weight_map", {}).values())}
    if (folder / "config.json") in configs and not weights:
        others = [one for one in sorted(names) if one.endswith(".safetensors")]
        hint = f", only {others[0]}: generator.variant names such a set" if others else ""
        yield f"{name}: no safetensors weights are here{hint}"
    elif weights and (folder / "config.json") not in configs:
        yield f"{name}: no config.json is here"  # some classes then build their largest model, at random
    yield from whole(sorted(weights), folder.parent)


def whole(paths: Iterable[Path], root: Path) -> Iterator[str]:
    """Say which weights are missing or cut off, by what their headers promise."""
    for path in paths:
        name = path.relative_to(root).as_posix()
        if not path.is_file():
            yield f"{name}: missing"
        elif not (size := _promised(path)):
            yield f"{name}: no safetensors"
        elif size != (real := path.stat().st_size):
            yield f"{name}: {real:,} bytes, wanted {size:,}"


def _promised(path: Path) -> int:
    """Read from a safetensors header how many bytes the file must have, 0 where it is none."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if length <= path.stat().st_size else {}
            ends = [row["data_offsets"][1] for key, row in header.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return 0
    return 8 + length + max(ends, default=0) if ends else 0


def changed(folder: Path) -> Iterator[str]:
    """Compare files with the sums the hub's cache names them by: SHA-256, or Git's SHA-1 for small ones."""
    for path in sorted(folder.rglob("*")):
        wanted = path.resolve().name if path.is_symlink() else ""
        known = path.is_file() and SUM.fullmatch(wanted)
        if known and _sum_of(path, len(wanted)) != wanted:
            yield f"{path.relative_to(folder).as_posix()}: its bytes are not those of its checksum"


def _sum_of(path: Path, digits: int) -> str:
    """Digest a file as the hub does."""
    digest = hashlib.sha256() if digits == 64 else hashlib.sha1(usedforsecurity=False)
    if digits == 40:
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
