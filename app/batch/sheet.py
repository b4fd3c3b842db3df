"""Contact sheets of a batch: pages as PNG, and one as HTML."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from pleinair.app.batch.outcomes import Entry
from pleinair.app.library.gaps import Gap
from pleinair.app.storyboard.gallery import LARGEST, ShownImage
from pleinair.app.storyboard.html import render_page
from pleinair.app.storyboard.png import COLOURS, EDGE, ENDINGS, GAP, PAPER, SCALE, SOFT, Column
from pleinair.app.texts import counted, printable
from pleinair.tools.storage.files import write_whole

ACROSS, DOWN = 5, 8  # images of a page
CELL, TEXT = 200, 76  # pixels before `SCALE`: a side of an image, the height of the text below
PAGE = "index.html"


def write_sheets(folder: Path, entries: Sequence[Entry], gaps: Sequence[Gap]) -> list[Path]:
    """Write the contact sheets of outcomes, `index.html` and `contact.png` (`contact-2.png`, …).

    Raises `PleinairError` when the disk is full.
    """
    page = folder / PAGE
    write_whole(page, _html(folder, entries, gaps).encode())
    each = ACROSS * DOWN
    pages = [entries[start : start + each] for start in range(0, len(entries), each)]
    paths = [page]
    for number, part in enumerate(pages, 1):
        paths.append(folder / (f"contact-{number}.png" if number > 1 else "contact.png"))
        write_whole(paths[-1], _png(part))
    return paths


def _png(entries: Sequence[Entry]) -> bytes:
    """Return a page of images with their lines, endings and prompts."""
    rows = -(-len(entries) // ACROSS)
    width = (2 * EDGE + ACROSS * (CELL + GAP) - GAP) * SCALE
    sheet = Image.new("RGB", (width, (2 * EDGE + rows * (CELL + TEXT + GAP) - GAP) * SCALE), PAPER)
    for number, entry in enumerate(entries):
        down, across = divmod(number, ACROSS)
        place = EDGE + across * (CELL + GAP), EDGE + down * (CELL + TEXT + GAP)
        sheet.paste(_cell(entry).image(), (place[0] * SCALE, place[1] * SCALE))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _cell(entry: Entry) -> Column:
    column = Column(CELL)
    column.paste(_image(entry), 0, CELL, CELL)
    column.y = CELL + 4
    column.text(_label(entry), 10, SOFT, 1)
    column.text(entry["status"], 11, ENDINGS.get(entry["status"], COLOURS["unsure"]), 1)
    column.text(printable(entry["prompt"]), 11, most=2)
    return column


def _label(entry: Entry) -> str:
    """Return the line of an entry, its id, and which image of its row it is."""
    image = f"image {entry['image']}" if entry["image"] > 1 else ""
    return " · ".join(filter(None, (f"line {entry['line']}", printable(entry["id"]), image)))


def _image(entry: Entry) -> ShownImage | None:
    """Return the image of an outcome, None without one."""
    with suppress(OSError, ValueError, Image.DecompressionBombError):
        if entry["picture"]:
            with Image.open(entry["picture"]) as image:
                image.thumbnail((LARGEST, LARGEST))
                return ShownImage(image.convert("RGB"))
    return None


def _html(folder: Path, entries: Sequence[Entry], gaps: Sequence[Gap]) -> str:
    """Return a page that shows the images from their files, without scripts."""
    values = {
        "heading": counted(len(entries), "image"),
        "cells": [_html_cell(folder, entry) for entry in entries],
        "gaps": gaps,
    }
    return render_page("contact.html", ["storyboard.css", "contact.css"], values)


def _html_cell(folder: Path, entry: Entry) -> dict[str, Any]:
    links = {name: _link(folder, entry[name]) for name in ("picture", "sidecar")}
    return {"label": _label(entry), **entry, **links}


def _link(folder: Path, file: str | None) -> str:
    """Return the address of a file of the folder as seen from a page in it, "" for none."""
    path = Path(file) if file else None
    return quote(path.name) if path and path.parent == folder else path.as_uri() if path else ""
