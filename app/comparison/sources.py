"""Images with their prompts, of what `pleinair judge` compares: folders of results, runs, or libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pleinair.app.api import find, home
from pleinair.app.runs.request import read_request
from pleinair.app.runs.results import read_sidecars
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput


@dataclass(frozen=True)
class Entry:
    """One image with the prompt that it was generated for."""

    prompt: str
    seed: int | None  # None: not known
    file: str  # its path, or its URL on object storage


def source_name(text: str) -> str:
    """Return a folder's absolute path, so that it is the same from everywhere; another text as it is."""
    folder = os.path.expanduser(text)
    return os.path.abspath(folder) if os.path.isdir(folder) else text


def read_source(text: str) -> list[Entry]:
    """Return the images of a source, in a fixed order.

    Args:
        text: a folder of images with sidecars (`draw --out`, `batch`), a library, whose captions are the
            prompts, or the id of a run, its beginning, "last", or several with commas between them.

    Raises:
        BadInput: there is no such folder or run, or it has no image with a prompt.
    """
    path = os.path.expanduser(text)  # a list of runs may be longer than a file's name
    if os.path.isfile(path):
        raise BadInput(f"{text!r}: it is a file", "Name the folder that it is in, or a run.")
    is_folder = os.path.isdir(path)
    entries = _of_folder(Path(path)) if is_folder else [_of_run(name, text) for name in text.split(",")]
    if not entries:
        raise BadInput(
            f"{text!r}: no image with a prompt in it",
            "Name a folder that `pleinair draw --out` or `batch` has written, or a library with captions.",
        )
    return entries


def _of_folder(folder: Path) -> list[Entry]:
    return list(_results(folder)) or list(_library(folder))


def _results(folder: Path) -> Iterator[Entry]:
    """Yield the images of the sidecars in a folder and below it."""
    for path, sidecar in read_sidecars(folder):
        image, seed = path.with_suffix(".png"), sidecar.get("seed")
        if image.is_file():
            prompt = str(sidecar["order"]["prompt"])
            yield Entry(prompt, seed if isinstance(seed, int) else None, str(image.resolve()))


def _library(folder: Path) -> Iterator[Entry]:
    """Yield the captioned images of a library; of several captions the first one is the prompt."""
    from pleinair.tools.retrieval.library import Library

    for item in Library.open((folder,)).items.values():
        if item.caption:
            yield Entry(item.caption.split("\n", 1)[0], None, str((folder / item.id).resolve()))


def _of_run(name: str, text: str) -> Entry:
    try:
        run = find(name.strip())
    except BadInput as error:
        raise BadInput(f"{text!r}: neither a folder nor a run: {error.message}", error.remedy) from error
    best = run.outcome.best if run.outcome else None
    if best is None:
        raise BadInput(f"run {run.id}: it has no image (status: {run.status})")
    file = ArtifactStore(home().pictures(run.id)).path(best.picture)
    return Entry(read_request(run.request_json).prompt, run.seed, file)
