"""How a command ends: one clear line, and an exit code that programs can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from pleinair.app.cli.terminal import printable
from pleinair.tools.types import BadInput, PleinairError

CODES = {"accepted": 0, "unchecked": 0, "stopped": 3, "refused": 4, "failed": 5, "cancelled": 130}
CODES |= {"bad input": 2, "busy": 6}  # of requests that are not run
EXITS = (
    "Exit codes: 0 accepted, or unchecked by a graph that checks no image; 2 bad input; 3 stopped by a limit "
    "or for want of references (with the best image so far); 4 refused; 5 failed; 6 another process works on "
    "the run; 130 cancelled, by SIGTERM too."
)


def leave(ending: str) -> NoReturn:
    """Exit with the code of an ending."""
    raise typer.Exit(CODES[ending])


def error_lines(error: PleinairError) -> str:
    """Return what the terminal prints for an error: its message, and its remedy on a line of its own."""
    remedy = f"\n          {printable(error.remedy)}" if error.remedy else ""
    return f"pleinair: {printable(error.message)}{remedy}"


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
    from pleinair.app.runs.store import Busy

    if isinstance(error, Busy):
        return "busy"
    return "bad input" if isinstance(error, BadInput) else "failed"
