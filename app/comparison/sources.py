"""Images with their prompts, of what `pleinair judge` compares: folders of results, runs, or libraries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pleinair.app.api import find, home
from pleinair.app.runs.request import read_request
from pleinair.app.runs.results import FORMAT
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput


@dataclass(frozen=True)
class Entry:
    """One image with the prompt that it was generated for."""

    prompt: str
    seed: int | None  # None: not known
    file: Path


def read_source(text: str) -> list[Entry]:
    """Return the images of a source, in a fixed order.

    Args:
        text: a folder of images with sidecars (`draw --out`, `batch`), a library, whose captions are the
            prompts, or the id of a run, its beginning, "last", or several with commas between them.

    Raises:
        BadInput: there is no such folder or run, or it has no image with a prompt.
    """
    folder = Path(text).expanduser()
    if folder.is_dir():
        entries = list(_results(folder)) or list(_library(folder))
        remedy = (
            "Name a folder that `pleinair draw --out` or `batch` has written, or a library with captions."
        )
    else:
        entries = [_of_run(name.strip(), text) for name in text.split(",")]
        remedy = ""
    if not entries:
        raise BadInput(f"{text!r}: no image with a prompt in it", remedy)
    return entries


def _results(folder: Path) -> Iterator[Entry]:
    """Yield the images of the sidecars in a folder and below it."""
    for path in sorted(folder.rglob("*.json")):
        sidecar, image = _read(path), path.with_suffix(".png")
        order = sidecar.get("order")
        if sidecar.get("format") == FORMAT and isinstance(order, dict) and image.is_file():
            seed = sidecar.get("seed")
            yield Entry(
                str(order.get("prompt", "")), seed if isinstance(seed, int) else None, image.resolve()
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _library(folder: Path) -> Iterator[Entry]:
    """Yield the captioned images of a library; of several captions the first one is the prompt."""
    from pleinair.tools.retrieval.library import Library

    for item in Library.open((folder,)).items.values():
        if item.caption:
            yield Entry(item.caption.split("\n", 1)[0], None, (folder / item.id).resolve())


def _of_run(name: str, text: str) -> Entry:
    try:
        run = find(name)
    except BadInput as error:
        raise BadInput(f"{text!r}: neither a folder nor a run: {error.message}", error.remedy) from error
    best = run.outcome.best if run.outcome else None
    if best is None:
        raise BadInput(f"run {run.id}: it has no image (status: {run.status})")
    path = Path(ArtifactStore(home().run(run.id) / "pictures").path(best.picture))
    return Entry(read_request(run.request_json).prompt, run.seed, path)


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file; raises `BadInput` if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from error
