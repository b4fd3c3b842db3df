"""Terminal output that untrusted text cannot control, error messages and exit codes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from pleinair.app.runs.store import Busy
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console
    from rich.text import Text

    from pleinair.app.doctor.doctor import Finding

WIDTH = 28  # characters of an image, each one pixel wide and two high
CODES = {"accepted": 0, "unchecked": 0, "stopped": 3, "refused": 4, "failed": 5, "cancelled": 130}
CODES |= {"bad input": 2, "busy": 6}  # of requests that are not run
_MAX_MESSAGE = 2000  # characters of an error, which may repeat a value
EXITS = (
    "Exit codes: 0 accepted, or unchecked by a graph that checks no image; 2 bad input; 3 stopped by a limit "
    "or for lack of references (with the best image so far); 4 refused; 5 failed; 6 another process works on "
    "the run; 130 cancelled, by SIGTERM too."
)


def printable(text: str) -> str:
    """Return a text on one line, with control characters replaced."""
    return "".join(char if char.isprintable() else "�" for char in " ".join(text.split()))


def printable_json(value: object) -> str:
    """Return JSON on one line with control characters escaped; it parses to the same value."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def quiet() -> None:
    """Silence logs and progress bars of libraries unless the environment sets them; call it before imports.

    The bars of downloads are shown: `huggingface_hub` does not read TQDM_DISABLE for them.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error if it is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def print_findings(findings: Iterable[Finding]) -> bool:
    """Print each finding of `pleinair doctor` as it comes; return whether all are in order."""
    in_order = True
    for finding in findings:
        in_order = in_order and finding.ok
        mark, colour = ("ok", typer.colors.GREEN) if finding.ok else ("!!", typer.colors.RED)
        typer.echo(f"{typer.style(mark, fg=colour)}  {finding.name}: {printable(finding.text)}")
        if finding.remedy:
            typer.echo(f"      {printable(finding.remedy)}")
    return in_order


def leave(ending: str) -> NoReturn:
    """Exit with the code of an ending."""
    raise typer.Exit(CODES[ending])


def error_lines(error: PleinairError) -> str:
    """Return what the terminal prints for an error: its message, and its remedy on a line of its own."""
    remedy = f"\n          {printable(error.remedy)}" if error.remedy else ""
    message = printable(error.message)
    return f"pleinair: {message[:_MAX_MESSAGE]}{'…' * (len(message) > _MAX_MESSAGE)}{remedy}"


@contextmanager
def explained() -> Iterator[None]:
    """Print an error that a user can act on to standard error, and exit with its code."""
    try:
        yield
    except PleinairError as error:
        typer.echo(error_lines(error), err=True)
        leave(_ending(error))
    except KeyboardInterrupt:
        typer.echo("pleinair: stopped at once", err=True)
        leave("cancelled")


def _ending(error: PleinairError) -> str:
    if isinstance(error, Busy):
        return "busy"
    return "bad input" if isinstance(error, BadInput) else "failed"


def is_utf8(text: str) -> bool:
    """Return whether a text can be written as UTF-8; bytes that could not be read make it unwritable."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
