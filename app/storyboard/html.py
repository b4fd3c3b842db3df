"""The storyboard of a run as one HTML file: no script, no request, everything escaped."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pleinair.app.storyboard import words
from pleinair.app.storyboard.gallery import Gallery
from pleinair.app.trace.trace import SIGNS, Trace

TEMPLATES = Path(__file__).with_name("templates")
COUNTS = {1: "one", 2: "two", 3: "three"}  # classes of the page by the number of attempts


def page(trace: Trace, gallery: Gallery) -> str:
    """Return the whole page; images are inside it as data URIs."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    style = (TEMPLATES / "storyboard.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    scenes = words.scenes_of(trace)
    return environment.get_template("storyboard.html").render(
        trace=trace,
        scenes=scenes,
        gallery=gallery,
        style=Markup(style),
        digest=Markup(f"sha256-{digest}"),
        count=COUNTS.get(len(scenes), "many"),
        ending=trace.outcome.ending if trace.outcome else "open",
        reason=trace.outcome.reason if trace.outcome else "not finished",
        checked=any(scene.rows for scene in scenes),
        signs=SIGNS,
        listed=words.listed(trace),
        made_with=words.made_with(trace),
        drawn=words.drawn,
        marked=words.marked,
        corners=words.corners,
        facts_of=words.facts_of,
        abstentions=words.abstentions,
    )
