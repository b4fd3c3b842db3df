"""The storyboard of a run as one PNG, for pages that show pictures only: what matters, drawn with Pillow."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from pleinair.app.trace.gallery import Gallery, Shown
from pleinair.app.trace.story import Scene, Story, sent_part, why
from pleinair.tools.types import Hit, Row

SCALE = 2  # for sharp text; all sizes below are before it
WIDTH = 300  # of a column, pixels
GAP = 18
EDGE = 34
PAD = 14
THUMB = 56
PAPER, CARD, LINE = "#f7f5f0", "#fffdf9", "#e4dfd4"
INK, SOFT = "#26241f", "#77726a"
COLOURS = {"present": "#2f7d55", "missing": "#b4472f", "unsure": "#96700f"}
ENDINGS = {"accepted": "#2f7d55", "refused": "#b4472f", "failed": "#b4472f"}
TALLEST = 6000  # pixels
MOST = 8  # attempts; a wider board is not looked at

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def board(story: Story, gallery: Gallery) -> bytes:
    """Draw all attempts side by side; long texts are cut."""
    scenes = story.scenes[:MOST]
    width = 2 * EDGE + max(len(scenes), 2) * (WIDTH + GAP) - GAP
    sheet = Sheet(width)
    top = heading(sheet, story, width)
    y = top
    for part in (title, references, picture, ledger, decision):
        y = max([part(sheet, scene, gallery, left(n), y) for n, scene in enumerate(scenes)], default=y)
    for number, scene in enumerate(scenes):
        sheet.frame(left(number), top, y + PAD, COLOURS["present"] if scene.best else LINE)
    return sheet.png(footer(sheet, gallery, y + PAD))


def left(number: int) -> int:
    """Give where a column begins."""
    return EDGE + number * (WIDTH + GAP)


class Sheet:
    """Draw on a large sheet in small units, and cut it at the end."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._image = Image.new("RGB", (width * SCALE, TALLEST), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self, x: float, y: float, words: str, size: int = 13, colour: str = INK, width: int = WIDTH
    ) -> float:
        """Write words from a top left corner, wrapped to a width and cut after four lines; give the end."""
        lines = list(wrapped(words, font(size), width * SCALE))
        for line in lines[:4]:
            self._draw.text((x * SCALE, y * SCALE), line, colour, font(size))
            y += size * 1.4
        return y

    def picture(self, x: float, y: float, shown: Shown | None, size: int) -> None:
        """Put a picture into a square; small ones are enlarged by squares."""
        box = (size * SCALE, size * SCALE)
        if shown is None:
            self._draw.rectangle((x * SCALE, y * SCALE, (x + size) * SCALE, (y + size) * SCALE), LINE)
            return
        smooth = Image.Resampling.NEAREST if shown.small else Image.Resampling.LANCZOS
        self._image.paste(shown.image.resize(box, smooth), (round(x * SCALE), round(y * SCALE)))

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        """Draw an empty box."""
        corners = (x0 * SCALE, y0 * SCALE, max(x1, x0) * SCALE, max(y1, y0) * SCALE)
        self._draw.rectangle(corners, outline=colour, width=2 * SCALE)

    def bar(self, x: float, y: float, share: float, colour: str) -> None:
        """Draw how much of a whole."""
        for part, tint in ((1.0, LINE), (share, colour)):
            self._draw.rectangle((x * SCALE, y * SCALE, (x + 40 * part) * SCALE, (y + 4) * SCALE), tint)

    def frame(self, x: float, top: float, bottom: float, colour: str) -> None:
        """Draw the edge of a column."""
        corners = (x * SCALE, top * SCALE, (x + WIDTH) * SCALE, bottom * SCALE)
        self._draw.rounded_rectangle(corners, 10 * SCALE, outline=colour, width=SCALE)

    def png(self, height: float) -> bytes:
        """Cut the sheet and encode it."""
        file = io.BytesIO()
        cut = self._image.crop((0, 0, self._image.width, min(round(height * SCALE), TALLEST)))
        cut.save(file, "PNG", optimize=True)
        return file.getvalue()


@cache
def font(size: int) -> Font:
    """Load the typeface that comes with Pillow."""
    return ImageFont.load_default(size * SCALE)


def wrapped(words: str, face: Font, width: float) -> Iterator[str]:
    """Break words into lines; a word that is too long is cut."""
    line = ""
    for word in words.split():
        longer = f"{line} {word}".strip()
        if line and face.getlength(longer) > width:
            yield line
            line = word
        else:
            line = longer
        while face.getlength(line) > width:
            line = line[:-1]
    if line:
        yield line


def heading(sheet: Sheet, story: Story, width: int) -> float:
    """Write what was asked and how it ended; give where the columns begin."""
    y = sheet.text(EDGE, EDGE, "pleinair", 12, SOFT)
    y = sheet.text(EDGE, y + 2, str(story.heading.get("prompt", "")), 22, INK, width - 2 * EDGE)
    ending = story.outcome.ending if story.outcome else "open"
    reason = why(story.outcome) if story.outcome else "not finished"
    colour = ENDINGS.get(ending, COLOURS["unsure"])
    y = sheet.text(EDGE, y + 4, f"{ending}: {reason}", 14, colour, width - 2 * EDGE)
    facts = f"run {story.heading.get('run', '')}  ·  seed {story.heading.get('seed', '')}  ·  {story.spent}"
    return sheet.text(EDGE, y + 4, facts, 11, SOFT, width - 2 * EDGE) + GAP


def title(sheet: Sheet, scene: Scene, gallery: Gallery, x: float, y: float) -> float:
    """Write the attempt's name and prompt."""
    best = "   (best)" if scene.best else ""
    y = sheet.text(x + PAD, y + PAD, scene.title + best, 17, COLOURS["present"] if scene.best else INK)
    return sheet.text(x + PAD, y, scene.attempt.request.prompt, 12, SOFT, WIDTH - 2 * PAD) + 6


def references(sheet: Sheet, scene: Scene, gallery: Gallery, x: float, y: float) -> float:
    """Show what the generator was given and painted in, and what was found and not picked."""
    used = scene.attempt.request.references
    if scene.painted:
        y = sheet.text(x + PAD, y, scene.painted, 12, INK, WIDTH - 2 * PAD) + 4
    if not used:
        y = sheet.text(x + PAD, y, "No references: drawn from the words alone.", 12, SOFT, WIDTH - 2 * PAD)
    left, width = x + PAD + THUMB + 10, WIDTH - 2 * PAD - THUMB - 10
    for one in used:
        sheet.picture(x + PAD, y, gallery.stored(one.picture, one.crop), THUMB)
        inner = sheet.text(left, y, one.concept, 13, INK, width)
        score = f"score {one.hit.score:.2f}, {scene.rank(one.concept, one.hit)}"
        rest = ", ".join(filter(None, (one.hit.license, sent_part(one))))
        for line in (score, rest):
            inner = sheet.text(left, inner, line, 11, SOFT, width)
        y = max(y + THUMB, inner) + 8
    return not_picked(sheet, [hit for _, _, hit in scene.left][:7], gallery, x, y)


def not_picked(sheet: Sheet, hits: list[Hit], gallery: Gallery, x: float, y: float) -> float:
    """Show the near misses in a row."""
    if not hits:
        return y + 6
    y = sheet.text(x + PAD, y, "Found, not picked", 11, SOFT)
    for number, hit in enumerate(hits):
        sheet.picture(x + PAD + number * 39, y + 2, gallery.found(hit), 34)
        sheet.text(x + PAD + number * 39 + 5, y + 38, f"{hit.score:.2f}", 10, SOFT)
    return y + 58


def picture(sheet: Sheet, scene: Scene, gallery: Gallery, x: float, y: float) -> float:
    """Show the attempt's picture with the ledger's boxes."""
    sheet.picture(x, y, gallery.stored(scene.attempt.picture), WIDTH)
    if repaint := scene.attempt.request.repaint:
        x0, y0, x1, y1 = (side * WIDTH for side in repaint.box)
        sheet.box(x + x0, y + y0, x + x1, y + y1, CARD)
    for number, row in enumerate(scene.rows, 1):
        if row.box:
            x0, y0, x1, y1 = (side * WIDTH for side in row.box)
            sheet.box(x + x0, y + y0, x + x1, y + y1, COLOURS[row.status])
            sheet.text(x + x0 + 5, y + y0 + 3, str(number), 13, COLOURS[row.status])
    return y + WIDTH + PAD


def ledger(sheet: Sheet, scene: Scene, gallery: Gallery, x: float, y: float) -> float:
    """List what was seen."""
    if not scene.rows:
        return sheet.text(x + PAD, y, "Nobody looked at this picture.", 12, SOFT) + 6
    for number, row in enumerate(scene.rows, 1):
        y = ledger_row(sheet, row, number, x + PAD, y)
    return y


def ledger_row(sheet: Sheet, row: Row, number: int, x: float, y: float) -> float:
    """Write one row."""
    colour = COLOURS[row.status]
    sheet.bar(x + WIDTH - 2 * PAD - 40, y + 6, row.confidence, colour)
    sheet.text(x + WIDTH - 2 * PAD - 130, y, f"{row.status} {row.confidence:.0%}", 12, colour)
    y = sheet.text(x, y, f"{number}  {row.concept}", 13, INK, WIDTH - 2 * PAD - 140)
    said = row.evidence or (row.advice if row.status != "present" else "")
    return sheet.text(x + 14, y, said, 11, SOFT, WIDTH - 2 * PAD - 14) + 5


def decision(sheet: Sheet, scene: Scene, gallery: Gallery, x: float, y: float) -> float:
    """Write what was done next."""
    y = sheet.text(x + PAD, y + 4, "Decision", 11, SOFT)
    return sheet.text(x + PAD, y, scene.decision, 13, INK, WIDTH - 2 * PAD)


def footer(sheet: Sheet, gallery: Gallery, y: float) -> float:
    """Say what the picture does not prove; give where the sheet ends."""
    pocket = (
        "Drawn by pocket models, which know a miniature world and nothing else. " if gallery.pocket else ""
    )
    words = f"{pocket}The ledger is a model's opinion of its own picture."
    return sheet.text(EDGE, y + GAP, words, 11, SOFT, sheet.width - 2 * EDGE) + EDGE
