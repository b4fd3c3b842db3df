"""Export the storyboard of a run, finished or not, to a file that can be mailed."""

from __future__ import annotations

from pathlib import Path

from pleinair.app.paths import Paths
from pleinair.app.runs.request import read_request
from pleinair.app.runs.store import Run
from pleinair.app.storyboard.gallery import Gallery
from pleinair.app.trace.trace import trace_begun
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput


def export(run: Run, places: Paths, file: Path) -> None:
    """Write a storyboard to a .html or .png file.

    Raises `BadInput` for another ending, or a run that has not begun; `PleinairError` when the disk is full.
    """
    if file.suffix not in (".html", ".png"):
        raise BadInput(f"{str(file)!r}: wanted a name that ends in .html or .png")
    trace = trace_begun(run, places)
    gallery = Gallery(run.id, read_request(run.request_json), places)
    if file.suffix == ".html":
        from pleinair.app.storyboard.html import page

        write_whole(file.absolute(), page(trace, gallery).encode())
    else:
        from pleinair.app.storyboard.png import board

        write_whole(file.absolute(), board(trace, gallery))
