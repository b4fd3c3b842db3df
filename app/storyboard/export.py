"""Export the storyboard of a run, finished or not, to one HTML or PNG file, or its trace to JSON.

The HTML has no script and loads nothing; all text in it is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pleinair.app.paths import Paths
from pleinair.app.runs.request import read_request
from pleinair.app.runs.store import Run
from pleinair.app.storyboard.gallery import Gallery
from pleinair.app.storyboard.html import render_page, run_values
from pleinair.app.storyboard.png import render_png
from pleinair.app.texts import printable_json
from pleinair.app.trace.calls import steps_with_calls, usage_by_attempt
from pleinair.app.trace.show import Report
from pleinair.app.trace.trace import Trace, trace_begun
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput

KINDS = (".html", ".png", ".json")


def export(run: Run, places: Paths, file: Path) -> None:
    """Write a storyboard to a .html or .png file, or the trace as JSON.

    Raises `BadInput` for another suffix, or a run that has not begun; `PleinairError` when the disk is full.
    """
    if file.suffix not in KINDS:
        raise BadInput(f"{str(file)!r}: wanted a name that ends in {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    write_whole(file.absolute(), exported(run, places, file.suffix))


def exported(run: Run, places: Paths, kind: str) -> bytes:
    """Return the storyboard of a run as .html or .png, or its trace as .json, with the messages.

    Raises `BadInput` for a run that has not begun.
    """
    if kind == ".json":
        return printable_json(Report(run, places).plain(messages=True)).encode()
    trace = trace_begun(run, places)
    gallery = Gallery(run.id, read_request(run.request_json), places)
    if kind == ".png":
        return render_png(trace, gallery)
    return render_html(trace, gallery, usage_by_attempt(steps_with_calls(run, places))).encode()


def render_html(trace: Trace, gallery: Gallery, costs: Mapping[int, str] = MappingProxyType({})) -> str:
    """Return a storyboard as a page; its images are data URIs."""
    return render_page("storyboard.html", ["storyboard.css"], run_values(trace, gallery, costs))
