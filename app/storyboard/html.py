"""The storyboard of a run as one HTML file: no script, no request, everything escaped."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pleinair.app.storyboard import words
from pleinair.app.storyboard.gallery import Gallery
from pleinair.app.trace.story import SIGNS, Story

TEMPLATES = Path(__file__).with_name("templates")
COUNTS = {1: "one", 2: "two", 3: "three"}  # classes of the page by the number of attempts


def page(story: Story, gallery: Gallery) -> str:
    """Return the whole page; images are inside it as data URIs."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    style = (TEMPLATES / "storyboard.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    scenes = words.scenes_of(story)
    story.heading = {"prompt": "", "graph": "", "seed": ""} | story.heading
    return environment.get_template("storyboard.html").render(
        story=story,
        scenes=scenes,
        gallery=gallery,
        style=Markup(style),
        digest=Markup(f"sha256-{digest}"),
        count=COUNTS.get(len(scenes), "many"),
        ending=story.outcome.ending if story.outcome else "open",
        reason=story.outcome.reason if story.outcome else "not finished",
        checked=any(scene.rows for scene in scenes),
        signs=SIGNS,
        listed=words.listed(story),
        made_with=words.made_with(story),
        drawn=words.drawn,
        marked=words.marked,
        corners=words.corners,
        facts_of=words.facts_of,
        abstentions=words.abstentions,
    )
