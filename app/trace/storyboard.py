"""The storyboard of a run as one HTML file: no script, no request, everything escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from pleinair.app.trace.gallery import Gallery
from pleinair.app.trace.story import SIGNS, Scene, Story, why
from pleinair.app.trace.storyboard_card import card, sign
from pleinair.app.trace.storyboard_words import listed, made_with, scenes_of

TEMPLATES = Path(__file__).with_name("templates")
COUNTS = {1: "one", 2: "two", 3: "three"}
NOTE = (
    "The ledger is a model's opinion of its own picture, with the confidence that it claims; marks show "
    "where it says that a concept is. "
    "A score is the similarity of a library picture to the words, not its quality."
)
POCKET = "Drawn by pocket models: miniature ones, which know a miniature world and nothing else."


def page(story: Story, gallery: Gallery) -> str:
    """Write the whole page."""
    style = (TEMPLATES / "storyboard.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    body = header(story) + board(story, gallery) + footer(story, gallery.pocket)
    skeleton = Template((TEMPLATES / "storyboard.html").read_text(encoding="utf-8"))
    return skeleton.substitute(
        title=escape(f"{story.heading.get('prompt', 'A run')} · pleinair"),
        style=style,
        digest=f"sha256-{digest}",
        count=COUNTS.get(len(story.scenes), "many"),
        body=body,
    )


def header(story: Story) -> str:
    """Say what was asked, how it ended, what it took, and how each concept fared."""
    ending = story.outcome.ending if story.outcome else "open"
    reason = why(story.outcome) if story.outcome else "not finished"
    graph, seed = (story.heading.get(name, "") for name in ("graph", "seed"))
    spent = f"{graph} graph · seed {seed} · {story.spent}"
    return (
        '<header><div><p class="mark">pleinair</p>'
        f"<h1>{escape(str(story.heading.get('prompt', '')))}</h1>"
        f'<p class="end"><span class="ending {ending}">{ending}</span><span>{escape(reason)}</span></p>'
        f'<p class="soft">{escape(spent)}</p></div>{overview(story)}</header>'
    )


def overview(story: Story) -> str:
    """Draw the table of concepts by attempts; where nobody looked, only the list."""
    scenes = story.scenes
    if not story.concepts:
        return ""
    if not any(scene.rows for scene in scenes):
        names = ", ".join(one.name for one in story.concepts)
        return f'<p class="listed"><small>{listed(story)}</small>{escape(names)}</p>'
    heads = "".join(overview_head(scene) for scene in scenes)
    lines = "".join(overview_row(concept.name, scenes) for concept in story.concepts)
    first = f'<th scope="col">{listed(story)}</th>'
    table = f"<table><thead><tr>{first}{heads}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="overview">{table}{legend()}</div>'


def legend() -> str:
    """Say what the signs mean."""
    keys = "".join(f"<span>{sign(status)} {status}</span>" for status in SIGNS)
    return f'<p class="legend">{keys}<span>– not looked at</span></p>'


def overview_head(scene: Scene) -> str:
    """Head an attempt's column by its number, as there may be many."""
    title = escape(scene.title)
    short = scene.attempt.number or title
    return f'<th scope="col" title="{title}" aria-label="{title}">{short}</th>'


def overview_row(concept: str, scenes: Sequence[Scene]) -> str:
    """Draw how one concept fared in each attempt."""
    rows = [{row.concept: row for row in scene.rows}.get(concept) for scene in scenes]
    cells = "".join(f"<td>{named(row.status if row else '')}</td>" for row in rows)
    return f'<tr><th scope="row">{escape(concept)}</th>{cells}</tr>'


def named(status: str) -> str:
    """Draw a status as a sign with its name for those who do not see it."""
    if not status:
        return '<span class="soft" role="img" aria-label="not looked at" title="not looked at">–</span>'
    label = f'role="img" aria-label="{status}" title="{status}"'
    return f'<span class="{status}" {label}>{SIGNS[status]}</span>'


def board(story: Story, gallery: Gallery) -> str:
    """Draw the attempts side by side; whoever has no mouse can scroll them as well."""
    cards = "".join(card(scene, story, gallery) for scene in scenes_of(story))
    return f'<main class="board" tabindex="0" aria-label="Attempts">{cards}</main>' if cards else ""


def footer(story: Story, pocket: bool) -> str:
    """Say with what it was made, and what the page does not prove."""
    facts = made_with(story).items()
    items = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(text)}</dd></div>" for key, text in facts)
    known = f'<dl class="facts">{items}</dl>'
    return f"<footer>{known}{f'<p>{POCKET}</p>' if pocket else ''}<p>{NOTE}</p></footer>"
