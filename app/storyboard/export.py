"""Export the storyboard of a run, finished or not, to one HTML or PNG file.

The HTML has no script and loads nothing; all text in it is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from markupsafe import Markup

from pleinair.app.paths import Paths
from pleinair.app.runs.request import read_request
from pleinair.app.runs.store import Run
from pleinair.app.storyboard.gallery import Gallery
from pleinair.app.storyboard.html import TEMPLATES, environment, run_values
from pleinair.app.storyboard.png import render_png
from pleinair.app.trace.trace import Trace, trace_begun
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput


def export(run: Run, places: Paths, file: Path) -> None:
    """Write a storyboard to a .html or .png file.

    Raises `BadInput` for another suffix, or a run that has not begun; `PleinairError` when the disk is full.
    """
    if file.suffix not in (".html", ".png"):
        raise BadInput(f"{str(file)!r}: wanted a name that ends in .html or .png")
    trace = trace_begun(run, places)
    gallery = Gallery(run.id, read_request(run.request_json), places)
    html = file.suffix == ".html"
    content = render_html(trace, gallery).encode() if html else render_png(trace, gallery)
    write_whole(file.absolute(), content)


def render_html(trace: Trace, gallery: Gallery) -> str:
    """Return a storyboard as a page; its images are data URIs."""
    style = (TEMPLATES / "storyboard.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        environment()
        .get_template("storyboard.html")
        .render(run_values(trace, gallery), style=Markup(style), digest=Markup(f"sha256-{digest}"))
    )
