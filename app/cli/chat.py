"""`pleinair chat`: say what you want to see, and then what should be otherwise."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pleinair.app.cli.exit_codes import error_lines, explained
from pleinair.app.cli.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

    from pleinair.app.session import ChatSession, Found

HELP = """\
Say what you want to see, then what should be otherwise: "now make it night", "not that bird".
/refs                  list the pictures found for each concept
/veto N …              never use these pictures of the list; again: allow them
/pin N …               always show their concepts by these pictures; again: let them go
/approve               pin what the last picture was drawn from
/give FILE CONCEPT     show a concept by a picture of yours
/fork N                go on from request N, as if nothing had been said after it
/budget [KEY=VALUE …]  show or set the limits of a request: attempts, images, mllm_calls, tokens, usd, seconds
/help                  show this
/quit                  leave; Ctrl-D does too. Ctrl-C stops a drawing at its next step"""
PROMPT = "› "

Read = Callable[[str], str]  # asks for a line; raises EOFError at the end, KeyboardInterrupt on Ctrl-C
Say = Callable[[str], None]


def chat(
    profile: Annotated[str | None, typer.Option(help="The engines to use; `pocket` needs nothing.")] = None,
    library: Annotated[str | None, typer.Option(help="The folder of pictures to look into.")] = None,
    out: Annotated[str | None, typer.Option(help="The folder for results; ./pleinair-out if unset.")] = None,
    after: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with the talk of a run.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one key.")
    ] = None,
) -> None:
    """Draw in a talk: each line is a request, and each goes on from the one before. /help lists commands."""
    from pleinair.app.session import ChatSession
    from pleinair.app.settings import assignments, load

    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of the model libraries would run through our lines
    with explained():
        chosen = assignments(setting or []) | ({"library.folder": library} if library else {})
        load(profile, chosen)
        session = ChatSession(profile=profile, out=out, overrides=chosen)
        if after:
            session.go_on_from(after)
    from rich.console import Console

    talk(session, _line_reader(), Console(highlight=False))


def _line_reader() -> Read:
    """Read lines from the terminal with a history that is kept, or as they are piped in."""
    if not sys.stdin.isatty():
        return _piped_line
    try:
        import readline
    except ImportError:  # not on every platform
        return input
    history = _history_file()
    if history.exists():
        readline.read_history_file(history)
    readline.set_history_length(1000)

    def read(prompt: str) -> str:
        line = input(prompt)
        history.parent.mkdir(parents=True, exist_ok=True)
        readline.write_history_file(history)
        return line

    return read


def _piped_line(prompt: str) -> str:
    """Read a line without a prompt that nobody sees."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _history_file() -> Path:
    """Name the file of what was said, in the user's own folder."""
    from pleinair.app.api import home

    return home().home / "chat-history"


def talk(session: ChatSession, read: Read, console: Console) -> None:
    """Take lines until the user leaves; no request and no command ends the program."""
    from pleinair.tools.types import PleinairError

    say: Say = lambda text: console.print(text, markup=False, soft_wrap=True)  # noqa: E731
    say("What do you want to see? /help lists commands.")
    while True:
        try:
            line = read(PROMPT).strip()
            if line == "/quit":
                return
            answer(line, session, console, say)
        except EOFError:
            return
        except KeyboardInterrupt:
            say("\n/quit leaves.")
        except PleinairError as fault:
            say(error_lines(fault))


def answer(line: str, session: ChatSession, console: Console, say: Say) -> None:
    """Do what one line asks for."""
    from pleinair.tools.types import BadInput

    if not line:
        return
    if not line.startswith("/"):
        _draw(line, session, console, say)
        return
    name, _, rest = line[1:].partition(" ")
    if name not in COMMANDS:
        raise BadInput(
            f"/{name}: no such command; there are: {', '.join('/' + one for one in COMMANDS)}, /quit"
        )
    say(COMMANDS[name](session, rest.strip()))


def _draw(prompt: str, session: ChatSession, console: Console, say: Say) -> None:
    """Draw one request in sight of the user, who may stop it."""
    from pleinair.app.cli.live import LiveView
    from pleinair.app.cli.run import stopping_on_interrupt

    run = session.submit(prompt)
    with stopping_on_interrupt(run.id), LiveView(run, console) as view:
        result = session.finish(run, view.event, view.on_preview)
    if result.picture:
        say(str(result.picture))


def _refs(session: ChatSession, rest: str) -> str:
    """List what was found."""
    lines = [f"{number:>3}  {_described(one)}" for number, one in enumerate(session.found(), 1)]
    return "\n".join(lines) or "Nothing was looked up yet."


def _described(one: Found) -> str:
    """Say what a picture is and what becomes of it."""
    marks = f"  [{', '.join(one.marks)}]" if one.marks else ""
    return printable(f"{one.concept}: {one.hit.id} {one.hit.score:.2f} {one.hit.caption[:60]}") + marks


def _veto(session: ChatSession, rest: str) -> str:
    """Forbid or allow."""
    chosen = session.veto(*_numbers("veto", rest))
    ways = {one.hit.id: "not used any more" if one.hit.id in session.vetoes else "allowed" for one in chosen}
    return "\n".join(f"{printable(id)} is {way}." for id, way in ways.items())


def _pin(session: ChatSession, rest: str) -> str:
    """Pin or let go."""
    chosen = session.pin(*_numbers("pin", rest))
    lines = []
    for one in chosen:
        way = "shown by" if session.pins.get(one.concept) == one.hit else "no longer bound to"
        lines.append(printable(f"{one.concept} is {way} {one.hit.id}."))
    return "\n".join(lines)


def _approve(session: ChatSession, rest: str) -> str:
    """Pin all that was used."""
    lines = [f"{one.concept} is shown by {one.hit.id}." for one in session.approve()]
    return "\n".join(map(printable, lines)) or "The last picture was drawn without references."


def _give(session: ChatSession, rest: str) -> str:
    """Keep a picture of the user's."""
    from pleinair.tools.types import BadInput

    try:
        words = shlex.split(rest)
    except ValueError as fault:
        raise BadInput(f"/give: {fault}") from fault
    if len(words) < 2:
        raise BadInput(f"{_usage('give')}: wanted a file and the concept that it shows")
    session.give(words[0], " ".join(words[1:]))
    return f"{printable(' '.join(words[1:]))} is shown by {printable(words[0])}."


def _fork(session: ChatSession, rest: str) -> str:
    """Go back."""
    from pleinair.tools.types import BadInput

    chosen = _numbers("fork", rest)
    if len(chosen) > 1:
        raise BadInput(f"{_usage('fork')}: wanted one number, got {len(chosen)}")
    session.fork(*chosen)
    return f"Going on from request {len(session.runs)}."


def _budget(session: ChatSession, rest: str) -> str:
    """Show or set limits."""
    from pleinair.app.settings import assignments

    limits = session.limit(assignments(rest.split()))
    return "\n".join(f"{key} {'no limit' if value is None else value}" for key, value in limits)


def _numbers(command: str, text: str) -> list[int]:
    """Read the numbers that a command wants, with or without commas between them."""
    from pleinair.tools.types import BadInput

    words = text.replace(",", " ").split()
    if strange := [word for word in words or [""] if not word.isdecimal()]:
        raise BadInput(
            f"{_usage(command)}: wanted a number, got {repr(strange[0]) if strange[0] else 'nothing'}"
        )
    return [int(word) for word in words]


def _usage(command: str) -> str:
    """Give a command as the help has it, with its arguments."""
    lines = (re.split(r"\s{2,}", line)[0] for line in HELP.splitlines())
    return next(line for line in lines if line.split()[0] == f"/{command}")


COMMANDS: dict[str, Callable[[ChatSession, str], Any]] = {
    "refs": _refs,
    "veto": _veto,
    "pin": _pin,
    "approve": _approve,
    "give": _give,
    "fork": _fork,
    "budget": _budget,
    "help": lambda session, rest: HELP,
}
