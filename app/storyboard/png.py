"""The storyboard of a run as one PNG, for pages that show pictures only: what matters, drawn with Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

from PIL import Image, ImageDraw, ImageFont, ImageOps

from pleinair.app.storyboard.gallery import Gallery, Shown
from pleinair.app.storyboard.words import abstentions, corners, drawn, facts_of, made_with, marked, scenes_of
from pleinair.app.trace.story import Scene, Story
from pleinair.tools.types import Box, Hit, Reference, Row, Status

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
            part = _fitting(longer, face, width)
            yield part
            longer = longer[len(part) :]
        line = longer
    if line:
        yield line


def _fitting(word: str, face: Font, width: float) -> str:
    """Give as much of a word's beginning as fits, at least one letter."""
    end = next((n for n in range(2, len(word) + 1) if face.getlength(word[:n]) > width), len(word) + 1)
    return word[: end - 1]


WIDTHS = {1: 460, 2: 340}  # of a column, pixels, by their count
WIDTH = 300  # of a column where there are more
GAP = 18
PAD = 14
THUMB = 56
STEP = 40  # pixels from one picture that was not picked to the next
ENDINGS = {"accepted": COLOURS["present"], "refused": COLOURS["missing"], "failed": COLOURS["missing"]}
MOST = 8  # attempts; a wider board is not looked at


def board(story: Story, gallery: Gallery) -> bytes:
    """Draw all attempts side by side; long texts are cut."""
    sheet, end = laid_out(story, gallery)
    return sheet.png(end)


def laid_out(story: Story, gallery: Gallery) -> tuple[Sheet, float]:
    """Draw the board on a sheet, and give where it ends; a first drawing tells how high the rows are."""
    scenes = scenes_of(story)[:MOST]
    width = WIDTHS.get(len(scenes), WIDTH)
    whole = 2 * EDGE + max(len(scenes) * (width + GAP) - GAP, WIDTHS[1])
    sheet, rough = Sheet(whole), Sheet(whole)
    places = [(scene, EDGE + number * (width + GAP)) for number, scene in enumerate(scenes)]
    tops = _rows([Column(rough, scene, gallery, x, width) for scene, x in places], _heading(sheet, story))
    for scene, x in places:
        Column(sheet, scene, gallery, x, width).draw(tops)
    return sheet, _footer(sheet, story, gallery, tops[-1])


def _rows(columns: Sequence[Column], top: float) -> list[float]:
    """Give where each row begins, and where the last ends, so that the same stands beside the same."""
    tops = [top]
    for row in range(len(columns[0].parts) if columns else 0):
        tops.append(max(one.parts[row](tops[-1]) for one in columns))
    return tops


def _heading(sheet: Sheet, story: Story) -> float:
    """Write what was asked and how it ended; give where the columns begin."""
    width = sheet.width - 2 * EDGE
    y = sheet.text(EDGE, EDGE - 6, "pleinair", 12, SOFT, width)
    y = sheet.text(EDGE, y + 2, str(story.heading.get("prompt", "")), 22, INK, width)
    y = _closing(sheet, story, y + 6)
    graph, seed = (story.heading.get(name, "") for name in ("graph", "seed"))
    return sheet.text(EDGE, y + 2, f"{graph} graph · seed {seed} · {story.spent}", 11, SOFT, width) + GAP


def _closing(sheet: Sheet, story: Story, y: float) -> float:
    """Write how it ended, and why: beside it where there is room, below it otherwise."""
    ending = story.outcome.ending if story.outcome else "open"
    reason = story.outcome.reason if story.outcome else "not finished"
    end = sheet.pill(EDGE, y, ending, ENDINGS.get(ending, COLOURS["unsure"])) + 9
    if sheet.wide(reason, 13) <= sheet.width - EDGE - end:
        return max(sheet.text(end, y, reason, 13, INK, sheet.width), y + 18) + 4
    return sheet.text(EDGE, y + 24, reason, 12, INK, sheet.width - 2 * EDGE, 10) + 4


def _footer(sheet: Sheet, story: Story, gallery: Gallery, y: float) -> float:
    """Say with what it was made, and what the picture does not prove; give where the sheet ends."""
    width = sheet.width - 2 * EDGE
    known = [f"{name.lower()} {text}" for name, text in made_with(story).items()]
    pocket = "Drawn by pocket models, which know a miniature world and nothing else. "
    words = f"{pocket if gallery.pocket else ''}The ledger is a model's opinion of its own picture."
    y = sheet.text(EDGE, y + GAP - 4, known[0], 10, SOFT, width)
    y = sheet.text(EDGE, y, " · ".join(known[1:]), 10, SOFT, width)
    return sheet.text(EDGE, y, words, 10, SOFT, width) + EDGE - 8


@dataclass(frozen=True)
class Column:
    """Draw one attempt: the picture first, then what was seen, decided and sent."""

    sheet: Sheet
    scene: Scene
    gallery: Gallery
    x: float
    width: int

    @property
    def parts(self) -> tuple[Callable[[float], float], ...]:
        """List what draws the rows; each takes where it begins and gives where it ends."""
        return self.head, self.picture, self.ledger, self.decision, self.sent

    @property
    def inner(self) -> int:
        """Give how wide words may be."""
        return self.width - 2 * PAD

    def draw(self, tops: Sequence[float]) -> None:
        """Draw the card and all that is on it."""
        x, end = self.x, self.x + self.width
        self.sheet.card((x, tops[0], end, tops[-1]), COLOURS["present"] if self.scene.best else LINE)
        self.sheet.band((x + 1, tops[3], end - 1, tops[4]), TINT)
        for part, top in zip(self.parts, tops, strict=False):
            part(top)

    def text(self, y: float, words: str, size: int = 12, colour: str = INK, most: int = 4) -> float:
        """Write words over the whole width."""
        return self.sheet.text(self.x + PAD, y, words, size, colour, self.inner, most)

    def head(self, y: float) -> float:
        """Write the attempt's name, how long it took and its seed."""
        title = self.scene.title
        if self.scene.best:
            place = self.x + PAD + self.sheet.wide(title, 17) + 10
            self.sheet.pill(place, y + PAD - 1, "best", COLOURS["present"])
        return self.text(self.text(y + PAD - 4, title, 17) + 1, drawn(self.scene), 11, SOFT) + 9

    def picture(self, y: float) -> float:
        """Show the attempt's picture in its own shape, with marks where the ledger says that concepts are."""
        size = self.scene.attempt.picture
        high = round(self.width * size.height / size.width)
        self.sheet.picture(self.x + 1, y, self.gallery.stored(size), self.width - 2, high)
        if repaint := self.scene.attempt.request.inpaint:
            self.sheet.box(self.over(repaint.box, y, high), CARD)
        for label, row, box in marked(self.scene):
            place = self.over(box, y, high)
            self.sheet.corners(place, COLOURS[row.status])
            self.sheet.text(place[0] + 5, place[1] + 3, label, 12, COLOURS[row.status], self.width)
        return y + high

    def over(self, box: Box, y: float, high: int) -> Box:
        """Place a box over the picture."""
        left, wide = self.x + 1, self.width - 2
        return left + box[0] * wide, y + box[1] * high, left + box[2] * wide, y + box[3] * high

    def ledger(self, y: float) -> float:
        """List what was seen."""
        y = self.text(y + 10, "Ledger", 11, SOFT) + 2
        if not self.scene.rows:
            return self.text(y, "None was kept for this picture.", 12, SOFT) + 8
        for number, row in enumerate(self.scene.rows, 1):
            y = self.row(row, number if len(self.scene.rows) > 1 else 0, y)
        return y + 5

    def row(self, row: Row, number: int, y: float) -> float:
        """Write one row; its number, if not 0, is that of its mark."""
        colour, level = COLOURS[row.status], f"{row.status} {row.confidence:.0%}"
        left, right = self.x + PAD + 17, self.x + self.width - PAD - 36
        wide = self.sheet.wide(level, 12)
        self.sheet.sign(self.x + PAD, y + 5, row.status)
        self.sheet.bar(right, y + 7, row.confidence, colour)
        self.sheet.text(right - 7 - wide, y + 1, level, 12, colour, wide + 1)
        if number and row.box and row.status != "unsure":
            beside = min(left + self.sheet.wide(row.concept, 13) + 6, right - wide - 24)
            self.sheet.text(beside, y + 2, str(number), 11, SOFT, 16)
        y = self.sheet.text(left, y, row.concept, 13, INK, right - 26 - wide - left)
        told = row.evidence or (row.advice if row.status != "present" else "")
        return self.sheet.text(left, y, told, 11, SOFT, self.inner - 17) + 4

    def decision(self, y: float) -> float:
        """Write what was done next."""
        y = self.text(y + 10, "Decision", 11, SOFT) + 2
        for words in self.scene.decisions:
            y = self.text(y, words, 13) + 3
        return y + 8

    def sent(self, y: float) -> float:
        """Show what the generator was given and painted in, and what was found and not picked."""
        request = self.scene.attempt.request
        y = self.text(y + 10, "Prompt as sent", 11, SOFT)
        y = self.text(y, request.prompt) + 6
        y = self.text(y, "References", 11, SOFT) + 2
        if self.scene.painted:
            y = self.text(y, self.scene.painted) + 4
        if not request.references:
            y = self.text(y, "None: drawn from the words alone.", 12, SOFT) + 4
        for one in request.references:
            y = self.reference(one, y)
        for words in abstentions(self.scene):
            y = self.text(y, words, 11, SOFT) + 4
        return self.not_picked([hit for _, _, hit in self.scene.left], y) + 8

    def reference(self, one: Reference, y: float) -> float:
        """Show one reference, or the part of it that was sent, with what is known of it."""
        left, width = self.x + PAD + THUMB + 10, self.inner - THUMB - 10
        self.sheet.picture(self.x + PAD, y + 2, self.gallery.stored(one.picture, one.crop), THUMB, THUMB)
        end = self.sheet.text(left, y, one.concept, 13, INK, width)
        for words in facts_of(one, self.scene, self.gallery.leak):
            end = self.sheet.text(left, end, words, 11, SOFT, width, 3)
        return max(y + THUMB + 2, end) + 6

    def not_picked(self, hits: Sequence[Hit], y: float) -> float:
        """Show the near misses in a row, and say how many more there are."""
        if not hits:
            return y
        most = self.inner // STEP
        more = f", {most} of {len(hits)}" if len(hits) > most else ""
        y = self.text(y, f"Found, not picked{more}", 11, SOFT)
        for number, hit in enumerate(hits[:most]):
            x = self.x + PAD + number * STEP
            self.sheet.picture(x, y + 3, self.gallery.found(hit), STEP - 6, STEP - 6)
            self.sheet.text(x + 6, y + STEP, f"{hit.score:.2f}", 10, SOFT, STEP)
        return y + STEP + 15
