"""Terminal output that untrusted text cannot control, error messages and exit codes."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from pleinair.app.runs.store import Busy
from pleinair.app.texts import printable
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console
    from rich.text import Text


LEAST_COLUMNS = 24  # beside an indent; with fewer, lines are not indented
WIDTH = 28  # characters of an image, each one pixel wide and two high
PAUSE = 10.0  # seconds between lines of progress
CODES = {"accepted": 0, "unchecked": 0, "stopped": 3, "refused": 4, "failed": 5, "cancelled": 130}
CODES |= {"bad input": 2, "busy": 6, "waiting": 7}  # of requests that are not run
_MAX_MESSAGE = 2000  # characters of an error, which may repeat a value
EXITS = (
    "Exit codes: 0 accepted, or unchecked by a graph that checks no image; 2 bad input; 3 stopped by a limit "
    "or for lack of references (with the best image so far); 4 refused; 5 failed; 6 another process works on "
    "the run; 7 waits for your approval; 130 cancelled, by SIGTERM too."
)


def quiet() -> None:
    """Silence logs and progress bars of libraries unless the environment sets them; call it before imports.

    The bars of downloads are shown: `huggingface_hub` does not read TQDM_DISABLE for them.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")


def new_console(*, err: bool = False) -> Console:
    """Return a console as wide as the terminal, a dumb one too, for which rich assumes 80 columns."""
    from rich.console import Console

    columns, lines = shutil.get_terminal_size()
    return Console(stderr=err, highlight=False, width=columns, height=lines)


def print_text(console: Console, text: str | Text) -> None:
    """Print a text; on a terminal it is wrapped between words."""
    from rich.text import Text

    line = Text(text) if isinstance(text, str) else text
    if console.is_terminal:
        console.print(line)
    else:
        console.print(line, soft_wrap=True)


def say(text: str, *, err: bool = False, indent: int = 0) -> None:
    """Print lines that may have ANSI colours; on a terminal each is wrapped between words.

    Args:
        text: the lines.
        err: whether they go to standard error.
        indent: columns by which the wrapped parts of a line are indented.
    """
    from rich.text import Text

    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        typer.echo(text, err=err)
        return
    console = _current_console() if err else new_console()
    for line in text.split("\n"):
        print_text(console, _hanging(Text.from_ansi(line), console, indent))


def say_all(lines: Iterable[str]) -> None:
    """Print lines as they come, without control characters."""
    for line in lines:
        say(printable(line))


def _hanging(line: Text, console: Console, indent: int) -> Text:
    """Return a line wrapped to the console with its later parts indented, unless little room is left."""
    from rich.text import Text

    if console.width - indent < LEAST_COLUMNS or len(line) <= indent:
        return line
    lead, rest = line.divide([indent])
    parts = rest.wrap(console, console.width - indent)
    for part in parts:
        part.rstrip()
    return Text("\n" + " " * indent).join(
        [lead + part if number == 0 else part for number, part in enumerate(parts)]
    )


_SHOWN: list[Console] = []  # of live views, the newest last


def _current_console() -> Console:
    """Return the console of the live view, to print above its spinner, or one of standard error."""
    return _SHOWN[-1] if _SHOWN else new_console(err=True)


@contextmanager
def shown_on(console: Console) -> Iterator[None]:
    """Let notes and logs be printed by the console of a live view."""
    _SHOWN.append(console)
    try:
        yield
    finally:
        _SHOWN.remove(console)


class NoteHandler(logging.Handler):
    """Handler that prints a warning of this program as one line, above the spinner of a live view."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        print_text(_current_console(), f"note: {printable(record.getMessage())}")


@contextmanager
def logging_notes() -> Iterator[None]:
    """Print the warnings of this program as notes, once, whatever a library does with the root logger."""
    log, handler = logging.getLogger("pleinair"), NoteHandler(logging.WARNING)
    before, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show on standard error what is done and the time left: a bar on a terminal, else some lines.

    Nothing else is printed until the bar has ended.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = new_console(err=True)
    if not console.is_terminal:
        yield _Lines(title)
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with shown_on(console), Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class _Lines:
    """Progress as lines of text, the first one after some seconds."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._first: tuple[float, int] | None = None  # when it was called first, and what was done by then
        self._printed = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = monotonic()
        if self._first is None:
            self._first, self._printed = (now, done), now
        if now - self._printed < PAUSE or done >= total:
            return
        self._printed = now
        started, before = self._first
        left = (
            f", {duration((now - started) / (done - before) * (total - done))} left" if done > before else ""
        )
        typer.echo(f"{self._title}: {done} of {total}{left}", err=True)


def duration(seconds: float) -> str:
    """Return seconds in words, in minutes if they are many."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def leave(ending: str) -> NoReturn:
    """Exit with the code of an ending."""
    raise typer.Exit(CODES[ending])


def error_lines(error: PleinairError) -> str:
    """Return what the terminal prints for an error: its message, and its remedy on lines of its own."""
    remedy = "".join(f"\n          {printable(line)}" for line in error.remedy.splitlines())
    message = printable(error.message)
    return f"pleinair: {message[:_MAX_MESSAGE]}{'…' * (len(message) > _MAX_MESSAGE)}{remedy}"


def has_terminal() -> bool:
    """Return whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


@contextmanager
def explained() -> Iterator[None]:
    """Print an error that a user can act on to standard error, and exit with its code."""
    try:
        yield
    except PleinairError as error:
        say(error_lines(error), err=True, indent=10)
        leave(_ending(error))
    except KeyboardInterrupt:
        say("pleinair: stopped at once", err=True)
        leave("cancelled")


def _ending(error: PleinairError) -> str:
    if isinstance(error, Busy):
        return "busy"
    return "bad input" if isinstance(error, BadInput) else "failed"


def shows_images(console: Console) -> bool:
    """Return whether a console can show images: a terminal with colours."""
    return bool(console.is_terminal and console.color_system and not console.no_color)


def half_blocks(image: Image, width: int = WIDTH) -> Text:
    """Return an image as upper half blocks, `width` characters a line, two pixels a character."""
    from rich.text import Text

    height = max(2, round(width * image.height / image.width / 2) * 2)
    small = image.convert("RGB").resize((width, height))
    text = Text()
    for y in range(0, height, 2):
        for x in range(width):
            upper, lower = (_hex_colour(small.getpixel((x, row))) for row in (y, y + 1))
            text.append("▀", f"{upper} on {lower}")
        text.append("\n")
    return text


def _hex_colour(pixel: Any) -> str:
    red, green, blue = pixel
    return f"#{red:02x}{green:02x}{blue:02x}"
