"""A sheet that a storyboard is drawn on with Pillow: words that wrap, pictures, signs and cards."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from itertools import islice

from PIL import Image, ImageDraw, ImageFont, ImageOps

from pleinair.app.trace.gallery import Shown
from pleinair.app.trace.storyboard_words import corners
from pleinair.tools.types import Box, Status

SCALE = 2  # for sharp text; all sizes below are before it
EDGE = 34
TALLEST = 6000  # pixels
PAPER, CARD, TINT, LINE = "#f7f5f0", "#fffdf9", "#f3f4f3", "#e4dfd4"
INK, SOFT = "#26241f", "#6a655d"
COLOURS = {"present": "#2a744e", "missing": "#b0432c", "unsure": "#83610a"}

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Sheet:
    """Draw on a large sheet in small units, and cut it at the end; `lines` is what was written."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.lines: list[str] = []
        self._image = Image.new("RGB", (width * SCALE, TALLEST), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self, x: float, y: float, words: str, size: int, colour: str, width: float, most: int = 4
    ) -> float:
        """Write words from a top left corner, wrapped to a width and cut after some lines; give the end."""
        lines = list(islice(wrapped(words, font(size), width * SCALE), most + 1))
        if len(lines) > most:
            lines = [*lines[: most - 1], f"{lines[most - 1].rstrip('.,;: ')} …"]
        for line in lines:
            self._draw.text((x * SCALE, y * SCALE), line, colour, font(size))
            y += size * 1.4
        self.lines += lines
        return y

    def wide(self, words: str, size: int) -> float:
        """Measure a line."""
        return font(size).getlength(words) / SCALE

    def picture(self, x: float, y: float, shown: Shown | None, width: float, height: float) -> None:
        """Put a picture into a box, cut where its shape is another; small ones are enlarged by squares."""
        left, top, size = round(x * SCALE), round(y * SCALE), (round(width * SCALE), round(height * SCALE))
        if shown is None:
            self._draw.rectangle((left, top, left + size[0], top + size[1]), LINE)
            return
        smooth = Image.Resampling.NEAREST if shown.small else Image.Resampling.LANCZOS
        self._image.paste(ImageOps.fit(shown.image, size, smooth), (left, top))

    def corners(self, place: Box, colour: str) -> None:
        """Mark the corners of a box, thin and with a light edge."""
        x0, y0, x1, y1 = (side * SCALE for side in place)
        for tint, width in (("#ffffff", 2 * SCALE), (colour, SCALE)):
            for line in corners(x0, y0, x1, y1):
                self._draw.line(line, tint, width, "curve")

    def box(self, place: Box, colour: str) -> None:
        """Draw an empty box."""
        x0, y0, x1, y1 = (side * SCALE for side in place)
        self._draw.rectangle((x0, y0, max(x1, x0), max(y1, y0)), outline=colour, width=SCALE)

    def sign(self, x: float, y: float, status: Status) -> None:
        """Draw a status as a circle: full, half full or empty."""
        place, colour = (x * SCALE, y * SCALE, (x + 9) * SCALE, (y + 9) * SCALE), COLOURS[status]
        self._draw.ellipse(place, colour if status == "present" else None, colour, round(1.5 * SCALE))
        if status == "unsure":
            self._draw.pieslice(place, 90, 270, colour)

    def bar(self, x: float, y: float, share: float, colour: str) -> None:
        """Draw how much of a whole."""
        for part, tint in ((1.0, LINE), (share, colour)):
            self._draw.rectangle((x * SCALE, y * SCALE, (x + 36 * part) * SCALE, (y + 4) * SCALE), tint)

    def card(self, place: Box, colour: str) -> None:
        """Draw a card with round corners and an edge."""
        sides = [side * SCALE for side in place]
        self._draw.rounded_rectangle(sides, 10 * SCALE, CARD, colour, SCALE)

    def band(self, place: Box, colour: str) -> None:
        """Fill a box."""
        self._draw.rectangle([side * SCALE for side in place], colour)

    def pill(self, x: float, y: float, words: str, colour: str) -> float:
        """Write a word with a round edge around it; give where it ends."""
        place = (x * SCALE, y * SCALE, (x + self.wide(words, 11) + 16) * SCALE, (y + 18) * SCALE)
        self._draw.rounded_rectangle(place, 9 * SCALE, None, colour, SCALE)
        self.text(x + 8, y + 2, words, 11, colour, self.width)
        return x + self.wide(words, 11) + 16

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
    """Break words into lines; a word that is too long is broken where the line ends."""
    line = ""
    for word in words.split():
        longer = f"{line} {word}".strip()
        if line and face.getlength(longer) > width:
            yield line
            longer = word
        while len(longer) > 1 and face.getlength(longer) > width:
            part = fitting(longer, face, width)
            yield part
            longer = longer[len(part) :]
        line = longer
    if line:
        yield line


def fitting(word: str, face: Font, width: float) -> str:
    """Give as much of a word's beginning as fits, at least one letter."""
    end = next((n for n in range(2, len(word) + 1) if face.getlength(word[:n]) > width), len(word) + 1)
    return word[: end - 1]
