"""Export the storyboard of a run, finished or not, to one HTML or PNG file.

The HTML has no script and loads nothing; all text in it is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pleinair.app.paths import Paths
from pleinair.app.runs.request import read_request
from pleinair.app.runs.store import Run
from pleinair.app.storyboard import words
from pleinair.app.storyboard.gallery import Gallery
from pleinair.app.storyboard.png import render_png
from pleinair.app.trace.trace import SIGNS, Trace, score_text, trace_begun
from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import BadInput

TEMPLATES = Path(__file__).with_name("templates")
LONG = 16  # characters of a word that may have to break
_SIGN = re.compile(r"([_/.-])(?=\w)")
COUNTS = {1: "one", 2: "two", 3: "three"}  # CSS classes by the number of attempts


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


def _breakable(text: str) -> Markup:
    """Return a text whose long words, such as file names, may break behind a sign instead of anywhere."""
    words = (str(escape(word)) for word in text.split(" "))
    return Markup(" ".join(_SIGN.sub(r"\1<wbr>", word) if len(word) > LONG else word for word in words))


def render_html(trace: Trace, gallery: Gallery) -> str:
    """Return a storyboard as a page; its images are data URIs."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    environment.filters["breakable"] = _breakable
    style = (TEMPLATES / "storyboard.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    attempts = words.attempts_of(trace)
    return environment.get_template("storyboard.html").render(
        trace=trace,
        attempts=attempts,
        gallery=gallery,
        style=Markup(style),
        digest=Markup(f"sha256-{digest}"),
        count=COUNTS.get(len(attempts), "many"),
        ending=trace.outcome.ending if trace.outcome else "open",
        reason=trace.outcome.reason if trace.outcome else "not finished",
        checked=any(attempt.rows for attempt in attempts),
        signs=SIGNS,
        words=words,
        score_text=score_text,
    )
