"""Replay of a finished run's files from what is stored, and a new run from a sidecar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from typing_extensions import Unpack

from pleinair.app.api import find, finish, home, run_table
from pleinair.app.parts import OwnParts, require_parts
from pleinair.app.runs.events import Ended, OnEvent, payloads, read
from pleinair.app.runs.history import pictures_in
from pleinair.app.runs.request import DrawRequest, new_request, read_request, require_input_images
from pleinair.app.runs.results import FORMAT, Result, deliver, files, original_file
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput


def replay(run: str, out: str | None = None) -> Result:
    """Write a finished run's image and sidecar again, and the image of every attempt; no model is called.

    Every stored image, references too, is read and compared with its SHA-256 before anything is written.
    The sidecar is the one that was written at the run's end, byte for byte if by this version, and so are the
    attempts' images, `…-attempt-0.png` and on, with `…-original` beside those that a server has signed.

    Args:
        run: a run's id, the beginning of one, or "last".
        out: the folder to write to; the run's own when None.

    Raises:
        BadInput: the run has not ended, or its log cannot be read.
        BadArtifact: an image is missing, or no longer what it was.
        PleinairError: the disk is full or the folder cannot be written to.
    """
    row = find(run)
    if row.outcome is None:
        raise BadInput(f"run {row.id}: it has not ended (status: {row.status}); wanted one that has")
    ends = payloads(read(home().events(row.id)), Ended)
    if not ends:
        raise BadInput(f"{home().events(row.id)}: the event `ended` is missing")
    end, request = ends[-1], read_request(row.request_json)
    store = ArtifactStore(home().pictures(row.id))
    for picture in pictures_in(end.model_dump(mode="json", include={"attempts"})):
        store.read(picture)
    folder = Path(out or request.out).expanduser().absolute()
    written = deliver(row, request, end, store, folder)
    image, sidecar = files(row, request, folder)
    for attempt in end.attempts:
        file = image.with_name(f"{image.stem}-attempt-{attempt.number}.png")
        write_whole(file, store.read(attempt.picture))
        if original := store.original(attempt.picture):
            write_whole(original_file(file, original.suffix), original.data)
    originals = (path for path in written if path not in (image, sidecar))
    return Result(
        row.id,
        row.outcome,
        row.seed,
        image if row.outcome.best else None,
        sidecar,
        next(originals, None),
    )


def redraw(
    sidecar: Path,
    *,
    out: str | None = None,
    on_event: OnEvent | None = None,
    **parts: Unpack[OwnParts],
) -> Result:
    """Run a sidecar's request again: the same prompt, seed and settings, as a new run.

    On the same machine, with the same models, library and versions, the image has the same pixels.

    Raises:
        BadInput: the file is no sidecar, or that of a fork or of a chat, which need other runs' history too;
            or an input image is not on this machine, or its own parts are missing.
    """
    request, seed = _read_sidecar(sidecar)
    if request.parent:
        raise BadInput(f"{sidecar}: it is of a fork of run {request.parent.run}", "Fork that run again.")
    if request.thread:
        raise BadInput(f"{sidecar}: it is of a chat", "`pleinair chat --after RUN` goes on with one.")
    require_input_images(request.input_images, home())
    require_parts(request.settings, parts)
    again = new_request(
        **request.model_dump(include={"prompt", "graph", "strip_metadata", "pictures", "base"}),
        seed=seed,
        settings=request.settings,
        out=out or request.out,
    )
    return finish(run_table().add_group(again.rows())[0], on_event, **parts)


def _read_sidecar(sidecar: Path) -> tuple[DrawRequest, int]:
    """Return the request and the seed; raises `BadInput`."""
    try:
        content: dict[str, Any] = json.loads(sidecar.read_text(encoding="utf-8"))
        if content["format"] == FORMAT:
            return DrawRequest.model_validate(content["order"]), int(content["seed"])
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise BadInput(f"{sidecar}: not a sidecar that this pleinair can read") from error
    raise BadInput(f"{sidecar}: its format is {content['format']}, this pleinair reads {FORMAT}")
