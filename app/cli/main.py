"""The command line; heavy libraries are imported inside the commands that need them."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer

from pleinair.app.cli import approval as approval
from pleinair.app.cli import retention as retention
from pleinair.app.cli.batch import batch
from pleinair.app.cli.chat import chat
from pleinair.app.cli.cluster import cluster_app
from pleinair.app.cli.doctor import doctor
from pleinair.app.cli.draw import draw
from pleinair.app.cli.index import index
from pleinair.app.cli.judge import judge
from pleinair.app.cli.library import library_app
from pleinair.app.cli.mcp import mcp
from pleinair.app.cli.models import models_app
from pleinair.app.cli.plugins import PluginGroup
from pleinair.app.cli.runs import runs_app
from pleinair.app.cli.serve import serve, worker
from pleinair.app.cli.setup import setup
from pleinair.app.cli.skill import skill
from pleinair.app.cli.terminal import EXITS, logging_notes, say
from pleinair.app.cli.trace import trace_app
from pleinair.app.cli.train import train_app
from pleinair.app.cli.trust import settings, trust
from pleinair.app.cli.verify import verify
from pleinair.app.texts import printable

HELP = (
    f"Generate images from reference images: critique, retrieve what is missing, generate again.\n\n{EXITS}"
)
app = typer.Typer(
    cls=PluginGroup,
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(runs_app, name="runs")
app.add_typer(trace_app, name="trace")
app.add_typer(models_app, name="models")
app.add_typer(cluster_app, name="cluster")
app.add_typer(library_app, name="library")
app.add_typer(train_app, name="train")
app.command(help=f"Generate an image of PROMPT; `-` reads it from standard input.\n\n{EXITS}")(draw)
app.command(help=f"Generate the images of a file of prompts; the same command goes on.\n\n{EXITS}")(batch)
for command in (chat, serve, worker, judge, mcp, index, doctor, verify, setup, trust, settings, skill):
    app.command()(command)


YOUNG_OBJECTS = 50_000  # between two collections; Python's own 700 spend a fifth of a start on them


def console() -> None:
    """Run the command line in a process of its own, which ends with it."""
    gc.set_threshold(YOUNG_OBJECTS)
    try:
        main()
    except SystemExit as end:
        _exit_quickly(end.code)


def _exit_quickly(code: object) -> NoReturn:
    """Exit without taking the modules apart, which takes a fifth of a short run once torch is imported.

    Exit functions run. Where a thread has to be awaited, or `code` is a message, Python exits its own way.
    """
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if all(thread.daemon for thread in others) and (code is None or isinstance(code, int)):
        atexit._run_exitfuncs()
        _flush()
        os._exit(code or 0)
    sys.exit(code)  # type: ignore[arg-type]


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def main() -> None:
    """Run the command line; a deprecated name is reported once, in one line."""
    from pleinair.app.settings import Renamed
    from pleinair.tools.tracing import send_remaining_traces

    os.environ.setdefault("LANGSMITH_USE_DAEMON", "true")  # otherwise a dead trace server delays the exit
    shown, show_other = set[str](), warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **others: Any) -> None:
        if not issubclass(category, Renamed):
            show_other(message, category, *rest, **others)
        elif str(message) not in shown:
            shown.add(str(message))
            say(f"pleinair: deprecated: {printable(str(message))}", err=True)

    with warnings.catch_warnings(), logging_notes(), _usable_output():
        warnings.simplefilter("always", Renamed)
        warnings.showwarning = show
        try:
            app()
        except SystemExit as end:
            send_remaining_traces()
            _exit_at_once_if_blocked(end.code)
            _flush()
            raise


@contextmanager
def _usable_output() -> Iterator[None]:
    """Open standard streams that are closed; exit with 5 and one line where output cannot be written."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    try:
        yield
    except OSError as error:  # such as of a full disk; what was drawn is stored
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # at its exit Python would try to write the rest
        say(f"pleinair: cannot write the output: {printable(str(error))}", err=True)
        sys.exit(5)


def _exit_at_once_if_blocked(code: object) -> None:
    """Exit without waiting for the blocked thread of a run that ended before it: everything is stored."""
    from pleinair.tools.deadline import is_blocked

    if is_blocked():
        _flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _show_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"pleinair {version('pleinair')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Parse the options before a command."""


if __name__ == "__main__":
    console()
