"""Strip of an attribution as PNG, by itself or below the attempts of a storyboard."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from pleinair.app.storyboard import words
from pleinair.app.storyboard.gallery import Gallery
from pleinair.app.storyboard.png import COLOURS, EDGE, GAP, PAPER, SCALE, SOFT, THUMB, Column
from pleinair.app.storyboard.strip import HEADING, NOTE, Cell, cells_of
from pleinair.app.trace.attribution import Attribution

WIDTH = 210  # of a column, before it is scaled


def strip_png(attribution: Attribution, gallery: Gallery) -> bytes:
    """Return the strip as PNG."""
    strip = strip_image(attribution, gallery)
    sheet = Image.new("RGB", (strip.width + 2 * EDGE * SCALE, strip.height + 2 * EDGE * SCALE), PAPER)
    sheet.paste(strip, (EDGE * SCALE, EDGE * SCALE))
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def strip_image(attribution: Attribution, gallery: Gallery) -> Image.Image:
    """Return the strip: a heading with what each reference carries, and the images below it."""
    columns = [_column(cell, gallery).image() for cell in cells_of(attribution)]
    width = WIDTH * len(columns) + GAP * (len(columns) - 1)
    heading = Column(width)
    heading.text(HEADING, 17)
    heading.text(attribution.prompt, 13, SOFT)
    for text in filter(None, map(attribution.verdict, attribution.concepts)):
        heading.text(text, 13)
    heading.text(f"{NOTE} {attribution.note}", 10, SOFT)
    heading.y += GAP / 2
    return _stacked(heading.image(), columns)


def _stacked(heading: Image.Image, columns: Sequence[Image.Image]) -> Image.Image:
    height = heading.height + max(column.height for column in columns)
    strip = Image.new("RGB", (heading.width, height), PAPER)
    strip.paste(heading, (0, 0))
    for number, column in enumerate(columns):
        strip.paste(column, (number * (WIDTH + GAP) * SCALE, heading.height))
    return strip


def _column(cell: Cell, gallery: Gallery) -> Column:
    column = Column(WIDTH)
    column.text(cell.title, 14)
    column.y += 4
    height = round(WIDTH * cell.picture.height / cell.picture.width)
    column.paste(gallery.stored(cell.picture), 0, WIDTH, height)
    column.y += height + 6
    for change in cell.changes:
        moved = "" if cell.difference is None else f" ({words.points(change.change)})"
        column.text(f"{change.concept}: {change.belief:.0%}{moved}", 13, COLOURS[change.status])
    if cell.difference is not None:
        column.text(f"pixels differ by {cell.difference:.1%}", 11, SOFT)
    if cell.carried:
        column.text(f"The reference carries {', '.join(cell.carried)}.", 12)
    column.y += 6
    for number, reference in cell.references:
        top = column.y
        column.paste(gallery.stored(reference.picture, reference.crop), 0, THUMB, THUMB)
        column.text(f"{cell.lead}reference {number + 1}: {reference.concept}", 11, SOFT, x=THUMB + 10)
        column.text(reference.hit.caption, 10, SOFT, x=THUMB + 10, most=2)
        column.y = max(column.y, top + THUMB) + 6
    return column
