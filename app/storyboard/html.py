"""The storyboard of a run as one HTML file: no script, no request, everything escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from pleinair.app.storyboard.gallery import Gallery, Shown
from pleinair.app.storyboard.words import (
    abstentions,
    corners,
    drawn,
    facts_of,
    listed,
    made_with,
    marked,
    scenes_of,
)
from pleinair.app.trace.story import SIGNS, Scene, Story
from pleinair.tools.types import Box, Hit, Reference, Retrieval, Row


def _card(scene: Scene, story: Story, gallery: Gallery) -> str:
    """Draw one attempt as a column."""
    badge = '<span class="badge">★ best</span>' if scene.best else ""
    decisions = "".join(f"<p>{escape(text)}</p>" for text in scene.decisions)
    asked = str(story.heading.get("prompt", ""))
    parts = (
        f'<div><h2>{escape(scene.title)}</h2>{badge}<p class="drawn">{escape(drawn(scene))}</p></div>',
        _picture(scene, gallery),
        f"<div><h3>Ledger</h3>{_ledger(scene.rows)}</div>",
        f'<div class="decision"><h3>Decision</h3>{decisions}</div>',
        f"<div>{_sent(scene, asked)}{_references(scene, gallery)}{_left_out(scene, gallery)}</div>",
    )
    return f'<article class="scene{" best" if scene.best else ""}">{"".join(parts)}</article>'


def _sent(scene: Scene, asked: str) -> str:
    """Show the prompt as sent: small where it is what was asked for."""
    prompt = scene.attempt.request.prompt
    kind = "same" if prompt == asked else "sent"
    return f'<h3>Prompt as sent</h3><p class="{kind}">{escape(prompt)}</p>'


def _references(scene: Scene, gallery: Gallery) -> str:
    """Show what the generator was given, and what it painted in."""
    used = "".join(_reference(one, scene, gallery) for one in scene.attempt.request.references)
    painted = f"<p>{escape(scene.painted)}</p>" if scene.painted else ""
    none = '<p class="soft">None: drawn from the words alone.</p>'
    return f"<h3>References</h3>{painted}{used or none}"


def _reference(one: Reference, scene: Scene, gallery: Gallery) -> str:
    """Show one reference, or the part of it that was sent, with what is known of it."""
    facts = "".join(f"<small>{escape(text)}</small>" for text in facts_of(one, scene, gallery.leak))
    text = one.hit.caption or f"reference for {one.concept}"
    shown = _image(gallery.stored(one.picture, one.crop), text, "thumb")
    return f'<div class="reference">{shown}<p>{escape(one.concept)}{facts}</p></div>'


def _left_out(scene: Scene, gallery: Gallery) -> str:
    """Show what was found and not picked, and where the library had nothing good enough."""
    abstained = "".join(f'<p class="soft">{escape(text)}</p>' for text in abstentions(scene))
    thumbs = "".join(_near_miss(found, rank, hit, gallery) for found, rank, hit in scene.left)
    strip = f'<h3>Found, not picked</h3><div class="left">{thumbs}</div>' if thumbs else ""
    return abstained + strip


def _near_miss(found: Retrieval, rank: int, hit: Hit, gallery: Gallery) -> str:
    """Show one picture that was not picked."""
    caption = f"{found.concept}, rank {rank}: {hit.caption}"
    label = f"{hit.score:.2f}"
    return f"<figure>{_image(gallery.found(hit), caption, 'thumb')}<figcaption>{label}</figcaption></figure>"


def _picture(scene: Scene, gallery: Gallery) -> str:
    """Show the attempt's picture, with marks where the ledger says that concepts are."""
    size = scene.attempt.picture.width, scene.attempt.picture.height
    marks = "".join(_mark(label, row, box, *size) for label, row, box in marked(scene))
    if repaint := scene.attempt.request.inpaint:
        marks = painted(repaint.box, *size) + marks
    overlay = f'<svg viewBox="0 0 {size[0]} {size[1]}" aria-hidden="true">{marks}</svg>'
    text = f"{scene.title}: {scene.attempt.request.prompt}"
    shown = _image(gallery.stored(scene.attempt.picture), text, "")
    return f'<figure class="picture">{shown}{overlay if marks else ""}</figure>'


def _mark(label: str, row: Row, box: Box, width: int, height: int) -> str:
    """Mark the corners of a box over a picture of this size in pixels, with the row's number."""
    x0, y0, x1, y1 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    lines = (" ".join(f"{side:.2f}" for side in line) for line in corners(x0, y0, x1, y1))
    line = "".join(f"M{points}" for points in lines)
    place = f'x="{x0 + width / 50:.2f}" y="{y0 + width / 19:.2f}" font-size="{width / 24:.2f}"'
    text = f"<text {place}>{label}</text>" if label else ""
    return f'<g class="{row.status}"><path class="halo" d="{line}"/><path d="{line}"/>{text}</g>'


def painted(box: Box, width: int, height: int) -> str:
    """Draw the box that was painted anew over a picture of this size in pixels."""
    x0, y0, x1, y1 = box
    size = f'width="{max(x1 - x0, 0) * width:.2f}" height="{max(y1 - y0, 0) * height:.2f}"'
    return f'<g class="painted"><rect x="{x0 * width:.2f}" y="{y0 * height:.2f}" {size}/></g>'


def _ledger(rows: Iterable[Row]) -> str:
    """List what was seen, with confidence and evidence."""
    listed = list(rows)
    items = "".join(_ledger_row(n if len(listed) > 1 else 0, row) for n, row in enumerate(listed, 1))
    none = '<p class="soft">None was kept for this picture.</p>'
    return f'<ul class="ledger">{items}</ul>' if items else none


def _ledger_row(number: int, row: Row) -> str:
    """Draw one row; its number, if not 0, is that of its mark."""
    advice = row.advice if row.status != "present" else ""
    said = "".join(f"<p>{escape(text)}</p>" for text in (row.evidence, advice) if text)
    own = f" <small>{number}</small>" if number and row.box and row.status != "unsure" else ""
    rect = f'<rect width="{row.confidence:.3f}" height="1"/>'
    bar = f'<svg class="bar" viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">{rect}</svg>'
    level = f'<em class="{row.status}">{row.status} {row.confidence:.0%}{bar}</em>'
    return f"<li>{_sign(row.status)}<b>{escape(row.concept)}{own}</b>{level}{said}</li>"


def _sign(status: str) -> str:
    """Draw a status as a sign, for the eye alone: its name stands beside."""
    return f'<span class="{status}" aria-hidden="true">{SIGNS[status]}</span>'


def _image(shown: Shown | None, text: str, kind: str) -> str:
    """Put a picture into the page itself, with words for those who do not see it."""
    if shown is None:
        gone = escape(f"{text}: no longer there")
        return f'<div class="{kind} gone" role="img" aria-label="{gone}" title="{gone}"></div>'
    names = f"{kind} small" if shown.small else kind
    return f'<img class="{names.strip()}" src="{shown.uri}" alt="{escape(text)}">'


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
    body = _header(story) + _board(story, gallery) + _footer(story, gallery.pocket)
    skeleton = Template((TEMPLATES / "storyboard.html").read_text(encoding="utf-8"))
    return skeleton.substitute(
        title=escape(f"{story.heading.get('prompt', 'A run')} · pleinair"),
        style=style,
        digest=f"sha256-{digest}",
        count=COUNTS.get(len(story.scenes), "many"),
        body=body,
    )


def _header(story: Story) -> str:
    """Say what was asked, how it ended, what it took, and how each concept fared."""
    ending = story.outcome.ending if story.outcome else "open"
    reason = story.outcome.reason if story.outcome else "not finished"
    graph, seed = (story.heading.get(name, "") for name in ("graph", "seed"))
    spent = f"{graph} graph · seed {seed} · {story.spent}"
    return (
        '<header><div><p class="mark">pleinair</p>'
        f"<h1>{escape(str(story.heading.get('prompt', '')))}</h1>"
        f'<p class="end"><span class="ending {ending}">{ending}</span><span>{escape(reason)}</span></p>'
        f'<p class="soft">{escape(spent)}</p></div>{_overview(story)}</header>'
    )


def _overview(story: Story) -> str:
    """Draw the table of concepts by attempts; where nobody looked, only the list."""
    scenes = story.scenes
    if not story.concepts:
        return ""
    if not any(scene.rows for scene in scenes):
        names = ", ".join(one.name for one in story.concepts)
        return f'<p class="listed"><small>{listed(story)}</small>{escape(names)}</p>'
    heads = "".join(_overview_head(scene) for scene in scenes)
    lines = "".join(_overview_row(concept.name, scenes) for concept in story.concepts)
    first = f'<th scope="col">{listed(story)}</th>'
    table = f"<table><thead><tr>{first}{heads}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="overview">{table}{_legend()}</div>'


def _legend() -> str:
    """Say what the signs mean."""
    keys = "".join(f"<span>{_sign(status)} {status}</span>" for status in SIGNS)
    return f'<p class="legend">{keys}<span>– not looked at</span></p>'


def _overview_head(scene: Scene) -> str:
    """Head an attempt's column by its number, as there may be many."""
    title = escape(scene.title)
    short = scene.attempt.number or title
    return f'<th scope="col" title="{title}" aria-label="{title}">{short}</th>'


def _overview_row(concept: str, scenes: Sequence[Scene]) -> str:
    """Draw how one concept fared in each attempt."""
    rows = [{row.concept: row for row in scene.rows}.get(concept) for scene in scenes]
    cells = "".join(f"<td>{_named(row.status if row else '')}</td>" for row in rows)
    return f'<tr><th scope="row">{escape(concept)}</th>{cells}</tr>'


def _named(status: str) -> str:
    """Draw a status as a sign with its name for those who do not see it."""
    if not status:
        return '<span class="soft" role="img" aria-label="not looked at" title="not looked at">–</span>'
    label = f'role="img" aria-label="{status}" title="{status}"'
    return f'<span class="{status}" {label}>{SIGNS[status]}</span>'


def _board(story: Story, gallery: Gallery) -> str:
    """Draw the attempts side by side; whoever has no mouse can scroll them as well."""
    cards = "".join(_card(scene, story, gallery) for scene in scenes_of(story))
    return f'<main class="board" tabindex="0" aria-label="Attempts">{cards}</main>' if cards else ""


def _footer(story: Story, pocket: bool) -> str:
    """Say with what it was made, and what the page does not prove."""
    facts = made_with(story).items()
    items = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(text)}</dd></div>" for key, text in facts)
    known = f'<dl class="facts">{items}</dl>'
    return f"<footer>{known}{f'<p>{POCKET}</p>' if pocket else ''}<p>{NOTE}</p></footer>"
