"""One attempt as a card of the HTML storyboard: the picture first, then what was seen, decided and sent."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from pleinair.app.trace.gallery import Gallery, Shown
from pleinair.app.trace.story import SIGNS, Scene, Story
from pleinair.app.trace.storyboard_words import abstentions, corners, drawn, facts_of, marked
from pleinair.tools.types import Box, Hit, Reference, Retrieval, Row


def card(scene: Scene, story: Story, gallery: Gallery) -> str:
    """Draw one attempt as a column."""
    badge = '<span class="badge">★ best</span>' if scene.best else ""
    decisions = "".join(f"<p>{escape(text)}</p>" for text in scene.decisions)
    asked = str(story.heading.get("prompt", ""))
    parts = (
        f'<div><h2>{escape(scene.title)}</h2>{badge}<p class="drawn">{escape(drawn(scene))}</p></div>',
        picture(scene, gallery),
        f"<div><h3>Ledger</h3>{ledger(scene.rows)}</div>",
        f'<div class="decision"><h3>Decision</h3>{decisions}</div>',
        f"<div>{sent(scene, asked)}{references(scene, gallery)}{left_out(scene, gallery)}</div>",
    )
    return f'<article class="scene{" best" if scene.best else ""}">{"".join(parts)}</article>'


def sent(scene: Scene, asked: str) -> str:
    """Show the prompt as sent: small where it is what was asked for."""
    prompt = scene.attempt.request.prompt
    kind = "same" if prompt == asked else "sent"
    return f'<h3>Prompt as sent</h3><p class="{kind}">{escape(prompt)}</p>'


def references(scene: Scene, gallery: Gallery) -> str:
    """Show what the generator was given, and what it painted in."""
    used = "".join(reference(one, scene, gallery) for one in scene.attempt.request.references)
    painted = f"<p>{escape(scene.painted)}</p>" if scene.painted else ""
    none = '<p class="soft">None: drawn from the words alone.</p>'
    return f"<h3>References</h3>{painted}{used or none}"


def reference(one: Reference, scene: Scene, gallery: Gallery) -> str:
    """Show one reference, or the part of it that was sent, with what is known of it."""
    facts = "".join(f"<small>{escape(text)}</small>" for text in facts_of(one, scene, gallery.leak))
    text = one.hit.caption or f"reference for {one.concept}"
    shown = image(gallery.stored(one.picture, one.crop), text, "thumb")
    return f'<div class="reference">{shown}<p>{escape(one.concept)}{facts}</p></div>'


def left_out(scene: Scene, gallery: Gallery) -> str:
    """Show what was found and not picked, and where the library had nothing good enough."""
    abstained = "".join(f'<p class="soft">{escape(text)}</p>' for text in abstentions(scene))
    thumbs = "".join(near_miss(found, rank, hit, gallery) for found, rank, hit in scene.left)
    strip = f'<h3>Found, not picked</h3><div class="left">{thumbs}</div>' if thumbs else ""
    return abstained + strip


def near_miss(found: Retrieval, rank: int, hit: Hit, gallery: Gallery) -> str:
    """Show one picture that was not picked."""
    caption = f"{found.concept}, rank {rank}: {hit.caption}"
    label = f"{hit.score:.2f}"
    return f"<figure>{image(gallery.found(hit), caption, 'thumb')}<figcaption>{label}</figcaption></figure>"


def picture(scene: Scene, gallery: Gallery) -> str:
    """Show the attempt's picture, with marks where the ledger says that concepts are."""
    size = scene.attempt.picture.width, scene.attempt.picture.height
    marks = "".join(mark(label, row, box, *size) for label, row, box in marked(scene))
    if repaint := scene.attempt.request.repaint:
        marks = painted(repaint.box, *size) + marks
    overlay = f'<svg viewBox="0 0 {size[0]} {size[1]}" aria-hidden="true">{marks}</svg>'
    text = f"{scene.title}: {scene.attempt.request.prompt}"
    shown = image(gallery.stored(scene.attempt.picture), text, "")
    return f'<figure class="picture">{shown}{overlay if marks else ""}</figure>'


def mark(label: str, row: Row, box: Box, width: int, height: int) -> str:
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


def ledger(rows: Iterable[Row]) -> str:
    """List what was seen, with confidence and evidence."""
    listed = list(rows)
    items = "".join(ledger_row(n if len(listed) > 1 else 0, row) for n, row in enumerate(listed, 1))
    none = '<p class="soft">None was kept for this picture.</p>'
    return f'<ul class="ledger">{items}</ul>' if items else none


def ledger_row(number: int, row: Row) -> str:
    """Draw one row; its number, if not 0, is that of its mark."""
    advice = row.advice if row.status != "present" else ""
    said = "".join(f"<p>{escape(text)}</p>" for text in (row.evidence, advice) if text)
    own = f" <small>{number}</small>" if number and row.box and row.status != "unsure" else ""
    rect = f'<rect width="{row.confidence:.3f}" height="1"/>'
    bar = f'<svg class="bar" viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">{rect}</svg>'
    level = f'<em class="{row.status}">{row.status} {row.confidence:.0%}{bar}</em>'
    return f"<li>{sign(row.status)}<b>{escape(row.concept)}{own}</b>{level}{said}</li>"


def sign(status: str) -> str:
    """Draw a status as a sign, for the eye alone: its name stands beside."""
    return f'<span class="{status}" aria-hidden="true">{SIGNS[status]}</span>'


def image(shown: Shown | None, text: str, kind: str) -> str:
    """Put a picture into the page itself, with words for those who do not see it."""
    if shown is None:
        gone = escape(f"{text}: no longer there")
        return f'<div class="{kind} gone" role="img" aria-label="{gone}" title="{gone}"></div>'
    names = f"{kind} small" if shown.small else kind
    return f'<img class="{names.strip()}" src="{shown.uri}" alt="{escape(text)}">'
