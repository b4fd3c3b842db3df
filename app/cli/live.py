"""A run in the terminal while it goes on: steps, ledgers and small pictures, on standard error."""

from __future__ import annotations

import io
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.markup import escape
from rich.text import Text

from pleinair.app.cli.terminal import printable
from pleinair.app.runs.events import Event
from pleinair.app.runs.request import read_order
from pleinair.app.storyboard.gallery import Gallery
from pleinair.app.trace.story import SIGNS, said, title
from pleinair.tools.types import Attempt, Outcome, Repair, Retrieval, Row

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.app.runs.store import Run
    from pleinair.app.settings import OnPreview

COLOURS = {"present": "green", "unsure": "yellow", "missing": "red"}
DOING = {
    "decompose": "Reading the prompt",
    "draft": "Drawing a draft",
    "critique": "Looking at the picture",
    "plan": "Thinking about repairs",
    "retrieve": "Looking things up",
    "select": "Choosing references",
    "generate": "Drawing",
    "drive": "Thinking",
    "act": "Working",
    "begin": "Reading the request",
    "veto": "Leaving pictures out",
    "pin": "Choosing a picture",
    "finish": "Ending",
    "index": "Indexing the library",
}
UNTOLD = ("critique", "finish")  # calls whose argument is told by what comes of them
WIDTH = 28  # characters of a picture, two pixels high each


class Show:
    """Tell events as they come; without a terminal plain lines, without colours no pictures."""

    def __init__(self, run: Run, console: Console | None = None) -> None:
        from pleinair.app.api import home

        self._console = console or Console(stderr=True, highlight=False)
        self._run, self._order = run, read_order(run.order_json)
        self._gallery = Gallery(run.id, self._order, home())
        self._status = self._console.status("Loading")
        self._words, self._preview = "Loading", Text()

    @property
    def on_preview(self) -> OnPreview | None:
        """Give `preview`, where pictures can be seen."""
        return self.preview if self._sees_pictures else None

    @property
    def _sees_pictures(self) -> bool:
        console = self._console
        return bool(console.is_terminal and console.color_system and not console.no_color)

    def __enter__(self) -> Show:
        self._say(f"[bold]{shown(self._order.prompt)}[/]")
        self._say(f"[dim]run {self._run.id} · {self._order.graph} · seed {self._run.seed}[/]")
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def event(self, event: Event) -> None:
        """Tell one event."""
        if event.data.get("text"):
            self._say(shown(str(event.data["text"])))
        elif event.kind in ("step_started", "progress"):
            self._preview = Text() if event.kind == "step_started" else self._preview
            self._do(doing(event))
        elif event.kind == "step_finished":
            self._step(event)
        elif event.kind == "resumed":
            self._say("[dim]going on from the last step[/]")
        elif event.kind == "ended":
            self._end(Outcome.model_validate(event.data["outcome"]))

    def preview(self, png: bytes) -> None:
        """Show below the spinner what is being drawn, until the next step of the graph."""
        from PIL import Image

        self._preview = half_blocks(Image.open(io.BytesIO(png)))
        self._do(self._words)

    def _do(self, words: str) -> None:
        self._words = words
        self._status.update(Group(Text.from_markup(words), self._preview) if self._preview else words)

    def _step(self, event: Event) -> None:
        data = event.data
        if data.get("concepts"):
            names = ", ".join(one["name"] for one in data["concepts"])
            label = "to be looked up" if data.get("repairs") else "must be visible"
            self._say(f"{label}: {shown(names)}")
        for one in data.get("retrievals", ()):
            self._say(_looked_up(Retrieval.model_validate(one)))
        for one in data.get("repairs", ()) if event.step == "select" else ():
            self._say(f"[blue]→[/] {shown(said(Repair.model_validate(one)))}")
        for one in data.get("attempts", ()):
            for repair in one["repairs"] if event.step == "act" and not one["ledger"] else ():
                self._say(f"[blue]→[/] {shown(said(Repair.model_validate(repair)))}")
            self._attempt(Attempt.model_validate(one))

    def _attempt(self, attempt: Attempt) -> None:
        if attempt.ledger is None:
            self._say(f"\n[bold]{title(attempt).lower()}[/] [dim]{attempt.seconds:.1f} s[/]")
            self._picture(attempt)
        for row in attempt.ledger.rows if attempt.ledger else ():
            self._say(row_line(row))

    def _picture(self, attempt: Attempt) -> None:
        shown = self._gallery.stored(attempt.picture)
        if shown and self._sees_pictures:
            self._console.print(half_blocks(shown.image))

    def _end(self, outcome: Outcome) -> None:
        colour = {"accepted": "green", "failed": "red", "refused": "red"}.get(outcome.ending, "yellow")
        self._say(f"\n[{colour} bold]{outcome.ending}[/]: {shown(outcome.reason)}")

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)


def shown(text: str) -> str:
    """Make a text of others harmless: neither the terminal nor rich acts on it."""
    return escape(printable(text))


def doing(event: Event) -> str:
    """Say what is being done, with a count where there is one."""
    data: dict[str, Any] = event.data
    call = data.get("call", {"name": event.step, "about": ""})
    about = "" if call["name"] in UNTOLD else call["about"]
    words = ": ".join(filter(None, (DOING.get(call["name"], call["name"]), about)))
    return f"{shown(words)} {data['done']}/{data['total']}" if "total" in data else shown(words)


def _looked_up(found: Retrieval) -> str:
    """Say what a look-up brought."""
    if found.abstained or not found.hits:
        return f"[yellow]⌕[/] {shown(found.concept)}: nothing taken, {shown(found.reason)}"
    best = found.hits[0]
    count = len(found.hits)
    return f"[blue]⌕[/] {shown(found.concept)}: {count} found, best {best.score:.2f} {shown(best.id)}"


def row_line(row: Row) -> str:
    """Say one row of a ledger."""
    colour, sign = COLOURS[row.status], SIGNS[row.status]
    line = f"  [{colour}]{sign}[/] {shown(row.concept)} [{colour}]{row.status}[/] {row.confidence:.0%}"
    return line + (f" [dim]{shown(row.evidence)}[/]" if row.evidence else "")


def half_blocks(image: Image, width: int = WIDTH) -> Text:
    """Draw a picture with upper half blocks: two pixels a character."""
    height = max(2, round(width * image.height / image.width / 2) * 2)
    small = image.convert("RGB").resize((width, height))
    text = Text()
    for y in range(0, height, 2):
        for x in range(width):
            text.append("▀", f"{_hexed(small.getpixel((x, y)))} on {_hexed(small.getpixel((x, y + 1)))}")
        text.append("\n")
    return text


def _hexed(pixel: Any) -> str:
    """Write a pixel as rich's colour."""
    red, green, blue = pixel
    return f"#{red:02x}{green:02x}{blue:02x}"
