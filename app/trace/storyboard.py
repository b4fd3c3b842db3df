"""The storyboard of a run as one HTML file: no script, no request, everything escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from pleinair.app.trace.gallery import Gallery, Shown
from pleinair.app.trace.story import Scene, Story, came_across, placed, sent_part, why
from pleinair.tools.types import Box, Hit, Reference, Retrieval, Row

TEMPLATES = Path(__file__).with_name("templates")
LABELS = {"generator": "Generator", "encoder": "Encoder", "mllm": "Chat model"}
SIGNS = {"present": "●", "unsure": "◐", "missing": "○"}
NOTE = (
    "The ledger is a model's opinion of its own picture, with the confidence that it claims. "
    "A score is the similarity of a library picture to the words, not its quality. "
    "What came across is what the picture has of a reference besides the concept, by its pixels."
)
POCKET = "Drawn by pocket models: miniature ones, which know a miniature world and nothing else."


def page(story: Story, gallery: Gallery) -> str:
    """Write the whole page."""
    style = (TEMPLATES / "storyboard.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    scenes = "".join(scene_card(scene, gallery) for scene in story.scenes)
    body = header(story) + overview(story) + f'<main class="board">{scenes}</main>' + footer(gallery.pocket)
    skeleton = Template((TEMPLATES / "storyboard.html").read_text(encoding="utf-8"))
    title = escape(f"{story.heading.get('prompt', 'A run')} · pleinair")
    return skeleton.substitute(title=title, style=style, digest=f"sha256-{digest}", body=body)


def header(story: Story) -> str:
    """Say what was asked, how it ended and with which models."""
    ending = story.outcome.ending if story.outcome else "open"
    reason = why(story.outcome) if story.outcome else "not finished"
    return (
        f'<header><p class="mark">pleinair</p><h1>{escape(str(story.heading.get("prompt", "")))}</h1>'
        f'<p><span class="ending {ending}">{ending}</span><span>{escape(reason)}</span></p>'
        f"{facts(story)}</header>"
    )


def facts(story: Story) -> str:
    """List what identifies the run."""
    known: Mapping[str, object] = story.heading
    models = known.get("models")
    items = {name.capitalize(): known.get(name, "") for name in ("run", "graph", "seed")}
    items |= {LABELS[kind]: name for kind, name in (models.items() if isinstance(models, dict) else ())}
    items["Spent"] = story.spent
    inner = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(str(text))}</dd></div>" for key, text in items.items()
    )
    return f'<dl class="facts">{inner}</dl>'


def overview(story: Story) -> str:
    """Draw the table of concepts by attempts."""
    if not story.concepts:
        return ""
    heads = "".join(f"<th>{escape(scene.title)}</th>" for scene in story.scenes)
    lines = "".join(overview_row(concept.name, story.scenes) for concept in story.concepts)
    return f"<table><thead><tr><th>Must be visible</th>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def overview_row(concept: str, scenes: Sequence[Scene]) -> str:
    """Draw how one concept fared in each attempt."""
    rows = [{row.concept: row for row in scene.rows}.get(concept) for scene in scenes]
    cells = "".join(f"<td>{sign(row)}</td>" for row in rows)
    return f'<tr><th scope="row">{escape(concept)}</th>{cells}</tr>'


def sign(row: Row | None) -> str:
    """Draw a row's status as a sign with its name."""
    if row is None:
        return '<span class="soft" title="not looked at">–</span>'
    return f'<span class="{row.status}" title="{row.status}">{SIGNS[row.status]}</span>'


def scene_card(scene: Scene, gallery: Gallery) -> str:
    """Draw one attempt as a column."""
    badge = '<span class="badge">★ best</span>' if scene.best else ""
    facts = [f"{scene.attempt.seconds:.1f} s", f"seed {scene.attempt.request.seed}", placed(scene.attempt)]
    seconds = f'<span class="push">{escape(" · ".join(filter(None, facts)))}</span>'
    parts = (
        f"<div><h2>{escape(scene.title)}</h2>{badge}{seconds}</div>",
        f'<div><h3>Prompt as sent</h3><p class="sent">{escape(scene.attempt.request.prompt)}</p></div>',
        f"<div>{references(scene, gallery)}{left_out(scene, gallery)}</div>",
        picture(scene, gallery),
        f"<div><h3>Ledger</h3>{ledger(scene.rows)}</div>",
        f'<div class="decision"><h3>Decision</h3><p>{escape(scene.decision)}</p></div>',
    )
    return f'<article class="scene{" best" if scene.best else ""}">{"".join(parts)}</article>'


def references(scene: Scene, gallery: Gallery) -> str:
    """Show what the generator was given, and what it painted in."""
    used, painted = (
        scene.attempt.request.references,
        f"<p>{escape(scene.painted)}</p>" if scene.painted else "",
    )
    if not used:
        return f'<h3>References</h3>{painted}<p class="soft">None: drawn from the words alone.</p>'
    return f"<h3>References</h3>{painted}" + "".join(reference(one, scene, gallery) for one in used)


def reference(one: Reference, scene: Scene, gallery: Gallery) -> str:
    """Show one reference, or the part of it that was sent, with its concept, score, source and licence."""
    hit = one.hit
    score = f"score {hit.score:.2f}, {scene.rank(one.concept, hit)}"
    credit = " · ".join(filter(None, (hit.license, hit.author, hit.source)))
    across = f"Came across: {share}" if (share := came_across(scene.attempt, one)) else ""
    texts = (score, sent_part(one), credit, across)
    facts = "".join(f"<small>{escape(text)}</small>" for text in texts if text)
    shown = image(gallery.stored(one.picture, one.crop), hit.caption, "thumb")
    return f'<div class="reference">{shown}<p>{escape(one.concept)}{facts}</p></div>'


def left_out(scene: Scene, gallery: Gallery) -> str:
    """Show what was found and not picked, and where the library had nothing good enough."""
    empty = [abstention(one) for one in scene.retrievals if one.abstained]
    abstained = "".join(f"<p><small>{escape(text)}</small></p>" for text in empty)
    thumbs = "".join(near_miss(found, rank, hit, gallery) for found, rank, hit in scene.left)
    strip = f'<p><small>Found, not picked</small></p><div class="left">{thumbs}</div>' if thumbs else ""
    return abstained + strip


def abstention(found: Retrieval) -> str:
    """Say why nothing was taken for a concept."""
    return f"Nothing taken for “{found.concept}”: {found.reason}"


def near_miss(found: Retrieval, rank: int, hit: Hit, gallery: Gallery) -> str:
    """Show one picture that was not picked."""
    caption = f"{found.concept}, rank {rank}: {hit.caption}"
    label = f"{hit.score:.2f}"
    return f"<figure>{image(gallery.found(hit), caption, 'thumb')}<figcaption>{label}</figcaption></figure>"


def picture(scene: Scene, gallery: Gallery) -> str:
    """Show the attempt's picture with the ledger's boxes over it."""
    size = scene.attempt.picture.width, scene.attempt.picture.height
    boxes = "".join(box(number, row, *size) for number, row in enumerate(scene.rows, 1) if row.box)
    if repaint := scene.attempt.request.repaint:
        boxes = rect("painted", repaint.box, *size) + boxes
    overlay = f'<svg viewBox="0 0 {size[0]} {size[1]}" aria-hidden="true">{boxes}</svg>'
    text = f"{scene.title}: {scene.attempt.request.prompt}"
    shown = image(gallery.stored(scene.attempt.picture), text, "")
    return f'<figure class="picture">{shown}{overlay if boxes else ""}</figure>'


def box(number: int, row: Row, width: int, height: int) -> str:
    """Draw a row's box over a picture of this size in pixels, with the row's number."""
    edges = row.box or (0, 0, 0, 0)
    x, y = edges[0] * width, edges[1] * height
    place = f'x="{x + width / 60:.2f}" y="{y + width / 15:.2f}" font-size="{width / 16:.2f}"'
    return rect(row.status, edges, width, height, f"<text {place}>{number}</text>")


def rect(kind: str, edges: Box, width: int, height: int, label: str = "") -> str:
    """Draw a rectangle over a picture of this size in pixels."""
    x0, y0, x1, y1 = edges
    size = f'width="{max(x1 - x0, 0) * width:.2f}" height="{max(y1 - y0, 0) * height:.2f}"'
    return f'<g class="{kind}"><rect x="{x0 * width:.2f}" y="{y0 * height:.2f}" {size}/>{label}</g>'


def ledger(rows: Iterable[Row]) -> str:
    """List what was seen, with confidence and evidence."""
    items = "".join(ledger_row(number, row) for number, row in enumerate(rows, 1))
    return (
        f'<ul class="ledger">{items}</ul>' if items else '<p class="soft">Nobody looked at this picture.</p>'
    )


def ledger_row(number: int, row: Row) -> str:
    """Draw one row; its number is that of its box."""
    advice = row.advice if row.status != "present" else ""
    said = "".join(f"<p>{escape(text)}</p>" for text in (row.evidence, advice) if text)
    mark = f" <small>{number}</small>" if row.box else ""
    rect = f'<rect width="{row.confidence:.3f}" height="1"/>'
    bar = f'<svg class="bar" viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">{rect}</svg>'
    level = f'<em class="{row.status}">{row.status} {row.confidence:.0%}{bar}</em>'
    return f"<li>{sign(row)}<b>{escape(row.concept)}{mark}</b>{level}{said}</li>"


def footer(pocket: bool) -> str:
    """Say what the page does not prove."""
    return f"<footer>{f'<p>{POCKET}</p>' if pocket else ''}<p>{NOTE}</p></footer>"


def image(shown: Shown | None, text: str, kind: str) -> str:
    """Put a picture into the page itself, with words for those who do not see it."""
    if shown is None:
        return f'<div class="{kind}" title="{escape(text)}: no longer in the library"></div>'
    names = f"{kind} small" if shown.small else kind
    return f'<img class="{names.strip()}" src="{shown.uri}" alt="{escape(text)}">'
