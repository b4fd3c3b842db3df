"""Results of runs as one ZIP file: images, sidecars, and a text of credits."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from zipfile import ZIP_STORED, ZipFile

from pleinair.app.credits.formats import text_of
from pleinair.app.paths import Paths
from pleinair.app.runs.events import Ended, payloads, read_readable
from pleinair.app.runs.request import read_request
from pleinair.app.runs.results import credits_of, deliver
from pleinair.app.runs.row import Run
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput

CREDITS = "credits.txt"


def zip_of(runs: Sequence[Run], places: Paths, file: IO[bytes]) -> None:
    """Write a ZIP file with the image and sidecar of each run that has ended, and the credits of all.

    Raises `BadInput` where no run has ended, and `PleinairError` for an image that is missing.
    """
    ended = [(run, ends[-1]) for run in runs if (ends := _ends(run, places))]
    if not ended:
        raise BadInput("none of these runs has ended", "Choose runs with an image.")
    with tempfile.TemporaryDirectory() as folder, ZipFile(file, "w", ZIP_STORED) as archive:
        for run, end in ended:
            request = read_request(run.request_json)
            store = ArtifactStore(places.pictures(run.id))
            for path in deliver(run, request, end, store, Path(folder)):
                archive.write(path, path.name)
                path.unlink()
        sheets = [credits_of(read_request(run.request_json), end) for run, end in ended]
        archive.writestr(CREDITS, "\n".join(map(text_of, sheets)))


def _ends(run: Run, places: Paths) -> list[Ended]:
    if not run.outcome:
        return []
    return payloads(read_readable(places.events(run.id)).events, Ended)
