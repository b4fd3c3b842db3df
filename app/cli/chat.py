"""`pleinair chat`: describe an image, and then what to change."""

from __future__ import annotations

import io
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from pleinair.app.chat.commands import answer
from pleinair.app.chat.edits import Edit
from pleinair.app.cli.options import Library, Out, Profile, Setting
from pleinair.app.cli.terminal import (
    error_lines,
    explained,
    half_blocks,
    new_console,
    print_text,
    shows_images,
)
from pleinair.app.texts import printable
from pleinair.tools.types import PleinairError

if TYPE_CHECKING:
    from rich.console import Console

    from pleinair.app.session import ChatSession

LEAVING = ("/quit", "/exit", "quit", "exit", "bye")
PROMPT = "› "
THUMBNAIL = 16  # characters of an image in a list

Read = Callable[[str], str]  # prompts for a line; raises EOFError, or KeyboardInterrupt on Ctrl-C


def chat(
    profile: Profile = None,
    library: Library = None,
    out: Out = None,
    after: Annotated[str | None, typer.Option(metavar="RUN", help="Continue the chat of a run.")] = None,
    setting: Setting = None,
) -> None:
    """Generate images in a chat; each line is a request that continues the last one. /help lists commands."""
    from pleinair.app.session import ChatSession
    from pleinair.app.settings import assignments, load

    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries would break the live view
    with explained():
        overrides = assignments(setting, {"library.folder": library})
        load(profile, overrides)
        session = ChatSession(profile=profile, out=out, overrides=overrides)
        if after:
            session.continue_from(after)
    run_chat(session, _line_reader(), new_console())


def _line_reader() -> Read:
    """Return a function that reads lines from a pipe, or from the terminal with a history file.

    Bytes that are not UTF-8 arrive as single surrogates, which no request may have.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if not sys.stdin.isatty():
        return _piped_line
    try:
        import readline
    except ImportError:  # not on every platform
        return input
    from pleinair.app.api import home

    history = home().home / "chat-history"
    with suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(1000)
    readline.parse_and_bind("set enable-bracketed-paste on")  # a pasted text of several lines is one request

    def read(prompt: str) -> str:
        line = input(prompt)
        with suppress(OSError):  # of a home that is full or read-only; the chat works without a history
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)
        return line

    return read


def _piped_line(prompt: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def run_chat(session: ChatSession, read: Read, console: Console) -> None:
    """Read and answer lines until the user quits; an error is printed and the chat continues."""
    print_text(console, _resumed(session) or "What do you want to see? /help lists commands.")
    with suppress(EOFError):
        while _next_line(session, read, console):
            pass
    if session.runs:
        profile = f" --profile {session.profile}" if session.profile else ""
        print_text(console, f"`pleinair chat{profile} --after {session.runs[-1]}` continues this chat.")


def _resumed(session: ChatSession) -> str:
    """Return what a chat goes on from, "" for one that begins."""
    if not session.runs:
        return ""
    last = session.entry()
    lines = [f"Going on from request {last.number}: {printable(last.prompt)} ({last.ending})."]
    lines += [str(last.picture)] if last.picture else []
    lines += [f"Pinned: {printable(', '.join(session.pins))}."] if session.pins else []
    lines += [f"References that are not used any more: {len(session.vetoes)}."] if session.vetoes else []
    return "\n".join([*lines, "What is to change? /list shows the requests, /help the commands."])


def _next_line(session: ChatSession, read: Read, console: Console) -> bool:
    """Read a line and answer it; return whether the chat goes on."""
    try:
        line = read(PROMPT).strip()
        if line.lower().rstrip(".!?") in LEAVING:
            return False
        if line:
            _answer(line, session, console)
    except KeyboardInterrupt:
        print_text(console, "\n/quit leaves.")
    except PleinairError as error:
        print_text(console, error_lines(error))
    except (OSError, sqlite3.Error) as error:  # of the home, such as a disk that became read-only
        print_text(console, error_lines(PleinairError(f"{printable(str(error))}: nothing was drawn")))
    return True


def _print_picture(console: Console, path: Path) -> None:
    """Print the path of an image, as a link where the terminal has links, and a thumbnail where it can."""
    from rich.text import Text

    console.print(Text(str(path), style=f"link file://{quote(str(path))}"), soft_wrap=True)
    if shows_images(console):
        from PIL import Image

        with suppress(OSError), Image.open(path) as image:
            console.print(half_blocks(image, THUMBNAIL))


def _answer(line: str, session: ChatSession, console: Console) -> None:
    """Print the answer to a line, or run the request that it means."""
    reply = answer(line, session)
    if isinstance(reply, Edit):
        _draw(reply, session, console)
        return
    for part in reply:
        print_text(console, part) if isinstance(part, str) else _print_picture(console, part)


def _draw(edit: Edit, session: ChatSession, console: Console) -> None:
    """Run one request with a live view; Ctrl-C cancels it."""
    from pleinair.app.cli.live import LiveView
    from pleinair.app.cli.run import stopping_on_interrupt

    run = session.submit(edit.prompt, edit.size) if edit.prompt else None
    if run is None:
        session.set_image_options(edit.size)
    if edit.size:
        sides = ", ".join(f"{name} {side}" for name, side in edit.size.items())
        print_text(console, f"From now on {sides}.")
    if run is None:
        return
    with stopping_on_interrupt(run.id), LiveView(run, console) as view:
        result = session.finish(run, view.event, view.on_preview)
    if result.picture:
        console.print(str(result.picture), markup=False, soft_wrap=True)
