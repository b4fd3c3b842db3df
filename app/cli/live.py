"""Live view of a run, or of several at once, on standard error: steps, ledgers and small images."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape
from rich.text import Text

from pleinair.app.cli.terminal import half_blocks, new_console, print_text, shown_on, shows_images
from pleinair.app.runs.events import Ended, Event, Progress, Resumed, StepFinished, StepStarted
from pleinair.app.runs.notes import option_lines
from pleinair.app.runs.request import read_request
from pleinair.app.storyboard.gallery import Gallery
from pleinair.app.texts import printable
from pleinair.app.trace.activity import activity
from pleinair.app.trace.trace import SIGNS, repair_text, score_text, title
from pleinair.tools.types import Attempt, Repair, Retrieval, Row

if TYPE_CHECKING:
    from rich.console import Console

    from pleinair.app.runs.row import Run
    from pleinair.app.settings import OnPreview

COLOURS = {"present": "green", "unsure": "yellow", "missing": "red"}
ENDINGS = {"accepted": "green", "failed": "red", "refused": "red"}  # yellow for all others


class Board:
    """Console of several runs at work: a line with the activity of each, below what is printed."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or new_console(err=True)
        self._status = self.console.status("Loading")
        self._activities: dict[str, str] = {}  # by label, rich markup
        self._lock = threading.Lock()
        self._shown = ExitStack()

    def __enter__(self) -> Board:
        self._shown.enter_context(shown_on(self.console))
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()
        self._shown.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hide the activities for a block, which may print to standard output, too."""
        self._status.stop()  # while it is shown rich redirects standard output to its console
        try:
            yield
        finally:
            self._status.start()

    def show(self, label: str, activity: str) -> None:
        """Show what a run does, "" for one that has ended."""
        with self._lock:
            self._activities.pop(label, None) if not activity else self._activities.update({label: activity})
            lines = [f"{label} · {activity}" for label, activity in self._activities.items()]
            self._status.update("\n".join(lines) or "Loading")


class LiveView:
    """Live view of a run: plain lines without a terminal, no images without colours.

    Where several runs share a `board`, what a view prints is held until `flush`, and there are no previews.
    """

    def __init__(self, run: Run, console: Console | None = None, board: Board | None = None) -> None:
        from pleinair.app.api import home

        self._board, self._held = board, list[Text]()
        self._console = board.console if board else console or new_console(err=True)
        self._run, self._request = run, read_request(run.request_json)
        self._gallery = Gallery(run.id, self._request, home())
        self._status = self._console.status("Loading")
        self._activity, self._preview = "Loading", Text()
        self._shown = ExitStack()

    @property
    def on_preview(self) -> OnPreview | None:
        """Return `preview` if the console can show images and has room for them, else None."""
        return self.preview if self._shows_images and not self._board else None

    @property
    def _shows_images(self) -> bool:
        return shows_images(self._console)

    def __enter__(self) -> LiveView:
        self._print(f"[bold]{_escaped(self._request.prompt)}[/]")
        for line in option_lines(self._request.prompt_options, self._request.notes):
            self._print(f"[yellow]![/] {_escaped(line)}")
        self._print(f"[dim]run {self._run.id} · {self._request.graph} · seed {self._run.seed}[/]")
        if self._board:
            self._show(self._activity)
        else:
            self._shown.enter_context(shown_on(self._console))
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._board:
            self._board.show(self._label, "")
        self._status.stop()
        self._shown.close()

    @property
    def _label(self) -> str:
        return f"seed {self._run.seed}"

    def flush(self) -> None:
        """Print what is held."""
        for text in self._held:
            print_text(self._console, text)
        self._held.clear()

    def event(self, event: Event) -> None:
        """Print an event, or show its activity beside the spinner."""
        match event.data:
            case Progress(text=text) if text:
                self._print(_escaped(text))
            case StepStarted():
                self._preview = Text()
                self._show(activity_text(event))
            case Progress():
                self._show(activity_text(event))
            case Resumed():
                self._print("[dim]going on from the last step[/]")
            case Ended(outcome=outcome):
                colour = ENDINGS.get(outcome.ending, "yellow")
                self._print(f"\n[{colour} bold]{outcome.ending}[/]: {_escaped(outcome.reason)}")
            case StepFinished() as update:
                self._update(event.step, update)

    def preview(self, png: bytes) -> None:
        """Show a preview below the spinner until the next step of the graph."""
        from PIL import Image

        self._preview = half_blocks(Image.open(io.BytesIO(png)))
        self._show(self._activity)

    def _show(self, activity: str) -> None:
        self._activity = activity
        if self._board:
            self._board.show(self._label, activity)
            return
        self._status.update(Group(Text.from_markup(activity), self._preview) if self._preview else activity)

    def _update(self, step: str, update: StepFinished) -> None:
        if update.concepts:
            names = ", ".join(concept.name for concept in update.concepts)
            label = "to be retrieved" if update.repairs else "must be visible"
            self._print(f"{label}: {_escaped(names)}")
        for retrieval in update.retrievals:
            self._print(_retrieval_line(retrieval))
        self._repairs(update.repairs or () if step == "select" else ())
        for attempt in update.attempts:
            if attempt.ledger is None:
                self._repairs(attempt.repairs if step == "act" else ())
                self._print(f"\n[bold]{title(attempt).lower()}[/] [dim]{attempt.seconds:.1f} s[/]")
                self._image(attempt)
            for row in attempt.ledger.rows if attempt.ledger else ():
                self._print(row_line(row))

    def _repairs(self, repairs: Sequence[Repair]) -> None:
        for repair in repairs:
            self._print(f"[blue]→[/] {_escaped(repair_text(repair))}")

    def _image(self, attempt: Attempt) -> None:
        stored = self._gallery.stored(attempt.picture)
        if stored and self._shows_images:
            self._put(half_blocks(stored.image))

    def _print(self, text: str) -> None:
        self._put(Text.from_markup(text))

    def _put(self, text: Text) -> None:
        if self._board:
            self._held.append(text)
        else:
            print_text(self._console, text)


def _escaped(text: str) -> str:
    """Return a text without control characters, its rich markup escaped."""
    return escape(printable(text))


def activity_text(event: Event) -> str:
    """Return what a step does, with its progress if it counts any, as rich markup."""
    return _escaped(activity(event))


def _retrieval_line(retrieval: Retrieval) -> str:
    if retrieval.abstained or not retrieval.hits:
        return f"[yellow]⌕[/] {_escaped(retrieval.concept)}: abstained, {_escaped(retrieval.reason)}"
    if lost := list(retrieval.unavailable):
        return f"[yellow]⌕[/] {_escaped(retrieval.concept)}: {_escaped(lost[-1])} cannot be read any more"
    best, count = retrieval.hits[0], len(retrieval.hits)
    found = f"{count} found, best {_escaped(best.id)}, {score_text(best)}"
    if copies := len(retrieval.near_copies):
        found += f"; {copies} near {'copy' if copies == 1 else 'copies'} left out"
    return f"[blue]⌕[/] {_escaped(retrieval.concept)}: {found}"


def row_line(row: Row) -> str:
    """Return one row of a ledger as rich markup."""
    colour, sign = COLOURS[row.status], SIGNS[row.status]
    line = f"  [{colour}]{sign}[/] {_escaped(row.concept)} [{colour}]{row.status}[/] {row.confidence:.0%}"
    return line + (f" [dim]{_escaped(row.evidence)}[/]" if row.evidence else "")
