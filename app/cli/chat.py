"""`pleinair chat`: describe an image, and then what to change."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from pleinair.app.chat.reply import Reply
from pleinair.app.cli.options import Library, License, Out, Profile, Setting
from pleinair.app.cli.terminal import (
    error_lines,
    explained,
    half_blocks,
    new_console,
    print_text,
    shows_images,
)
from pleinair.app.texts import printable
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from rich.console import Console

    from pleinair.app.chat.session import ChatSession
    from pleinair.app.chat.thread import Thread
    from pleinair.app.chat.threads import Threads
    from pleinair.app.runs.row import Run

LEAVING = ("/quit", "/exit", "quit", "exit", "bye")
PROMPT = "› "
THUMBNAIL = 16  # characters of an image in a list

Read = Callable[[str], str]  # prompts for a line; raises EOFError, or KeyboardInterrupt on Ctrl-C


def chat(
    profile: Profile = None,
    library: Library = None,
    license: License = None,
    out: Out = None,
    thread: Annotated[
        str | None, typer.Option(metavar="ID", help="Continue a thread, or the `last`.")
    ] = None,
    after: Annotated[str | None, typer.Option(metavar="RUN", help="Continue the chat of a run.")] = None,
    setting: Setting = None,
) -> None:
    """Generate images in a chat; each line is a request that continues the last one. /help lists commands."""
    from pleinair.app.chat.thread import Thread
    from pleinair.app.chat.threads import Threads
    from pleinair.app.settings import assignments, license_setting, load

    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries would break the live view
    with explained():
        overrides = assignments(setting, {"library.folder": library}) | license_setting(license)
        load(profile, overrides)
        threads, begun = Threads(), Thread.begin(profile=profile, out=out, overrides=overrides)
        if thread and after:
            raise BadInput("--thread and --after: only one of them can be used")
        if after:
            begun = threads.from_run(after, begun)
        if thread:
            begun = _with_options(threads.find(thread), begun)
    run_chat(threads, begun, _line_reader(), new_console())


def _with_options(thread: Thread, options: Thread) -> Thread:
    """Store a thread with other options, and return it."""
    from pleinair.app.chat.threads import Threads

    with Threads().opened(thread.id) as session:
        changes = {"profile": options.profile or thread.profile, "out": options.out or thread.out}
        overrides = session.thread.overrides | options.overrides
        session.thread = session.thread.model_copy(update=changes | {"overrides": overrides})
    return session.thread


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


@dataclass
class Chat:
    """Chat in a terminal: the thread in which it is, of which other interfaces may make use at once."""

    threads: Threads
    thread: Thread
    read: Read
    console: Console

    def say(self, text: str) -> None:
        """Print a text."""
        print_text(self.console, text)


def run_chat(threads: Threads, thread: Thread, read: Read, console: Console) -> Thread:
    """Read and answer lines until the user quits, and return the thread; an error does not end it."""
    chat = Chat(threads, thread, read, console)
    _print_resumed(chat)
    with suppress(EOFError):
        while _next_line(chat):
            pass
    if chat.thread.turns:
        chat.say(f"`pleinair chat --thread {chat.thread.id}` continues this chat.")
    return chat.thread


def _print_resumed(chat: Chat) -> None:
    """Print what the chat goes on from."""
    from pleinair.app.chat.thread_commands import plan

    session = chat.threads.viewed(chat.thread)
    if not session.thread.turns:
        chat.say("What do you want to see? /help lists commands.")
        return
    last, thread = session.message(), session.thread
    lines = [f"Going on from request {last.number}: {printable(last.prompt)} ({last.version.status})."]
    lines += [str(last.version.picture)] if last.version.picture else []
    pinned = ", ".join(pin.concept for pin in thread.pins)
    lines += [f"Pinned: {printable(pinned)}."] if pinned else []
    lines += [f"References that are not used any more: {len(thread.vetoes)}."] if thread.vetoes else []
    question = last.version.question
    lines += [plan(question, session) if question else "What is to change?"]
    chat.say("\n".join([*lines, "/list shows the requests, /help the commands."]))


def _next_line(chat: Chat) -> bool:
    """Read a line and answer it; return whether the chat goes on."""
    try:
        line = chat.read(PROMPT).strip()
        if line.lower().rstrip(".!?") in LEAVING:
            return False
        if line:
            _answer(line, chat)
    except KeyboardInterrupt:
        chat.say("\n/quit leaves.")
    except PleinairError as error:
        chat.say(error_lines(error))
    except OSError as error:  # of the home, such as a disk that became read-only
        chat.say(error_lines(PleinairError(f"{printable(str(error))}: nothing was drawn")))
    return True


def _print_picture(console: Console, path: Path) -> None:
    """Print the path of an image, as a link where the terminal has links, and a thumbnail where it can."""
    from rich.text import Text

    console.print(Text(str(path), style=f"link file://{quote(str(path))}"), soft_wrap=True)
    if shows_images(console):
        from PIL import Image

        with suppress(OSError), Image.open(path) as image:
            console.print(half_blocks(image, THUMBNAIL))


def _answer(line: str, chat: Chat) -> None:
    """Print the answer to a line, and execute the runs that it means."""
    from pleinair.app.chat.commands import answer

    with chat.threads.opened(chat.thread) as session:
        before = session.thread.overrides
        reply = answer(line, session)
        runs = [*reply.runs, *(_submitted(reply, session, chat) if reply.line else [])]
        after = session.thread.overrides
    chat.thread = reply.thread or session.thread
    for part in reply.parts:
        chat.say(part) if isinstance(part, str) else _print_picture(chat.console, part)
    if reply.line and after != before:
        sides = [f"{key.partition('.')[2]} {after[key]}" for key in after if after[key] != before.get(key)]
        chat.say(f"From now on {', '.join(sides)}.")
    if runs:
        _draw(runs, chat)
    elif reply.thread:
        _print_resumed(chat)


def _submitted(reply: Reply, session: ChatSession, chat: Chat) -> list[Run]:
    """Submit the line of a reply; several images that cost money are confirmed by the user."""
    from pleinair.app.chat.thread import MessageOptions
    from pleinair.app.runs.prompts import Unconfirmed

    options = reply.options or MessageOptions()
    try:
        return session.submit(reply.line, options)
    except Unconfirmed as error:
        if chat.read(f"{printable(error.message)}. Draw them? [y/N] ").strip().lower() not in ("y", "yes"):
            raise BadInput("not confirmed", "Nothing was drawn.") from error
        return session.submit(reply.line, options.model_copy(update={"yes": True}))


def _draw(runs: list[Run], chat: Chat) -> None:
    """Execute the runs of a request with a live view; Ctrl-C cancels them."""
    from pleinair.app.api import finish
    from pleinair.app.cli.live import LiveView
    from pleinair.app.cli.run import stopping_on_interrupt

    with stopping_on_interrupt(*(run.id for run in runs)):
        for run in runs:
            with LiveView(run, chat.console) as view:
                result = finish(run, view.event, view.on_preview)
            if result.picture:
                chat.console.print(str(result.picture), markup=False, soft_wrap=True)
    with chat.threads.opened(chat.thread.id) as session:
        question = session.question()
    chat.thread = session.thread
    if question:
        from pleinair.app.chat.thread_commands import plan

        chat.say(plan(question, session))
