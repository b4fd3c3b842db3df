"""The storyboard of a run as one PNG, for pages that show pictures only: what matters, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pleinair.app.trace.gallery import Gallery
from pleinair.app.trace.story import Scene, Story, why
from pleinair.app.trace.storyboard_sheet import CARD, COLOURS, EDGE, INK, LINE, SOFT, TINT, Sheet
from pleinair.app.trace.storyboard_words import abstentions, drawn, facts_of, made_with, marked, scenes_of
from pleinair.tools.types import Box, Hit, Reference, Row

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
    tops = rows([Column(rough, scene, gallery, x, width) for scene, x in places], heading(sheet, story))
    for scene, x in places:
        Column(sheet, scene, gallery, x, width).draw(tops)
    return sheet, footer(sheet, story, gallery, tops[-1])


def rows(columns: Sequence[Column], top: float) -> list[float]:
    """Give where each row begins, and where the last ends, so that the same stands beside the same."""
    tops = [top]
    for row in range(len(columns[0].parts) if columns else 0):
        tops.append(max(one.parts[row](tops[-1]) for one in columns))
    return tops


def heading(sheet: Sheet, story: Story) -> float:
    """Write what was asked and how it ended; give where the columns begin."""
    width = sheet.width - 2 * EDGE
    y = sheet.text(EDGE, EDGE - 6, "pleinair", 12, SOFT, width)
    y = sheet.text(EDGE, y + 2, str(story.heading.get("prompt", "")), 22, INK, width)
    y = closing(sheet, story, y + 6)
    graph, seed = (story.heading.get(name, "") for name in ("graph", "seed"))
    return sheet.text(EDGE, y + 2, f"{graph} graph · seed {seed} · {story.spent}", 11, SOFT, width) + GAP


def closing(sheet: Sheet, story: Story, y: float) -> float:
    """Write how it ended, and why: beside it where there is room, below it otherwise."""
    ending = story.outcome.ending if story.outcome else "open"
    reason = why(story.outcome) if story.outcome else "not finished"
    end = sheet.pill(EDGE, y, ending, ENDINGS.get(ending, COLOURS["unsure"])) + 9
    if sheet.wide(reason, 13) <= sheet.width - EDGE - end:
        return max(sheet.text(end, y, reason, 13, INK, sheet.width), y + 18) + 4
    return sheet.text(EDGE, y + 24, reason, 12, INK, sheet.width - 2 * EDGE, 10) + 4


def footer(sheet: Sheet, story: Story, gallery: Gallery, y: float) -> float:
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
        if repaint := self.scene.attempt.request.repaint:
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
