"""`pleinair chat`: describe an image, and then what to change."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pleinair.app.cli.options import Library, Out, Profile, Setting
from pleinair.app.cli.terminal import error_lines, explained, printable
from pleinair.tools.types import BadInput, PleinairError

if TYPE_CHECKING:
    from rich.console import Console

    from pleinair.app.session import ChatReference, ChatSession

HELP = """\
Describe an image, then what to change: "now make it night", "not that bird".
/refs                  list the references retrieved for each concept
/veto N …              never use these references of the list; again: allow them
/pin N …               always show their concepts by these references; again: unpin them
/approve               pin the references of the last image
/give FILE CONCEPT     show a concept by an image of yours
/fork N                continue from request N, without the requests after it
/image [KEY=VALUE …]   show or set options of the image, such as width=512 num_inference_steps=20
/budget [KEY=VALUE …]  show or set the limits of a request: attempts, images, mllm_calls, tokens, usd, seconds
/help                  show this
/quit                  quit, as Ctrl-D does; Ctrl-C stops a run after its current step"""
PROMPT = "› "

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
        overrides = assignments(setting or []) | ({"library.folder": library} if library else {})
        load(profile, overrides)
        session = ChatSession(profile=profile, out=out, overrides=overrides)
        if after:
            session.continue_from(after)
    from rich.console import Console

    run_chat(session, _line_reader(), Console(highlight=False))


def _line_reader() -> Read:
    """Return a function that reads lines from a pipe, or from the terminal with a history file."""
    if not sys.stdin.isatty():
        return _piped_line
    try:
        import readline
    except ImportError:  # not on every platform
        return input
    from pleinair.app.api import home

    history = home().home / "chat-history"
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
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def run_chat(session: ChatSession, read: Read, console: Console) -> None:
    """Read and answer lines until the user quits; an error is printed and the chat continues."""
    _print(console, "What do you want to see? /help lists commands.")
    while True:
        try:
            line = read(PROMPT).strip()
            if line == "/quit":
                return
            _answer(line, session, console)
        except EOFError:
            return
        except KeyboardInterrupt:
            _print(console, "\n/quit leaves.")
        except PleinairError as error:
            _print(console, error_lines(error))


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def _answer(line: str, session: ChatSession, console: Console) -> None:
    """Carry out a command or a request."""
    if not line:
        return
    if not line.startswith("/"):
        _draw(line, session, console)
        return
    name, _, rest = line[1:].partition(" ")
    if name not in COMMANDS:
        commands = ", ".join(f"/{command}" for command in COMMANDS)
        raise BadInput(f"/{name}: no such command; there are: {commands}, /quit")
    _print(console, COMMANDS[name](session, rest.strip()))


def _draw(prompt: str, session: ChatSession, console: Console) -> None:
    """Run one request with a live view; Ctrl-C cancels it."""
    from pleinair.app.cli.live import LiveView
    from pleinair.app.cli.run import stopping_on_interrupt

    run = session.submit(prompt)
    with stopping_on_interrupt(run.id), LiveView(run, console) as view:
        result = session.finish(run, view.event, view.on_preview)
    if result.picture:
        _print(console, str(result.picture))


def _refs(session: ChatSession, rest: str) -> str:
    references = enumerate(session.references(), 1)
    lines = [f"{number:>3}  {_reference_line(reference)}" for number, reference in references]
    return "\n".join(lines) or "Nothing was retrieved yet."


def _reference_line(reference: ChatReference) -> str:
    marks = f"  [{', '.join(reference.marks)}]" if reference.marks else ""
    hit = reference.hit
    return printable(f"{reference.concept}: {hit.id} {hit.score:.2f} {hit.caption[:60]}") + marks


def _veto(session: ChatSession, rest: str) -> str:
    ids = dict.fromkeys(reference.hit.id for reference in session.veto(*_read_numbers("veto", rest)))
    words = {id: "not used any more" if id in session.vetoes else "allowed" for id in ids}
    return "\n".join(f"{printable(id)} is {word}." for id, word in words.items())


def _pin(session: ChatSession, rest: str) -> str:
    lines = []
    for reference in session.pin(*_read_numbers("pin", rest)):
        pinned = session.pins.get(reference.concept) == reference.hit
        word = "shown by" if pinned else "no longer pinned to"
        lines.append(printable(f"{reference.concept} is {word} {reference.hit.id}."))
    return "\n".join(lines)


def _approve(session: ChatSession, rest: str) -> str:
    lines = [f"{reference.concept} is shown by {reference.hit.id}." for reference in session.approve()]
    return "\n".join(map(printable, lines)) or "The last image was generated without references."


def _add_input_image(session: ChatSession, rest: str) -> str:
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise BadInput(f"/give: {error}") from error
    if len(words) < 2:
        raise BadInput(f"{_usage('give')}: needs a file and the concept that it shows")
    session.add_input_image(words[0], " ".join(words[1:]))
    return f"{printable(' '.join(words[1:]))} is shown by {printable(words[0])}."


def _fork(session: ChatSession, rest: str) -> str:
    numbers = _read_numbers("fork", rest)
    if len(numbers) > 1:
        raise BadInput(f"{_usage('fork')}: needs one number, got {len(numbers)}")
    session.fork(*numbers)
    return f"Continuing from request {len(session.runs)}."


def _budget(session: ChatSession, rest: str) -> str:
    return _option_lines(session.set_budget(_read_options(rest)), "no limit")


def _image(session: ChatSession, rest: str) -> str:
    options = {key: None if value == "none" else value for key, value in _read_options(rest).items()}
    return _option_lines(session.set_image_options(options), "the generator's own")


def _read_options(text: str) -> dict[str, Any]:
    """Read `key=value` words; a value with spaces is quoted."""
    from pleinair.app.settings import assignments

    try:
        return assignments(shlex.split(text))
    except ValueError as error:
        raise BadInput(f"{text!r}: {error}") from error


def _option_lines(values: Iterable[tuple[str, Any]], default: str) -> str:
    return "\n".join(f"{key} {default if value is None else printable(str(value))}" for key, value in values)


def _read_numbers(command: str, text: str) -> list[int]:
    """Read the numbers of a command, separated by spaces or commas."""
    words = text.replace(",", " ").split()
    if others := [word for word in words or [""] if not word.isdecimal()]:
        value = repr(others[0]) if others[0] else "nothing"
        raise BadInput(f"{_usage(command)}: needs a number, got {value}")
    return [int(word) for word in words]


def _usage(command: str) -> str:
    """Return a command with its arguments, from the help."""
    lines = (re.split(r"\s{2,}", line)[0] for line in HELP.splitlines())
    return next(line for line in lines if line.split()[0] == f"/{command}")


COMMANDS: dict[str, Callable[[ChatSession, str], str]] = {
    "refs": _refs,
    "veto": _veto,
    "pin": _pin,
    "approve": _approve,
    "give": _add_input_image,
    "fork": _fork,
    "image": _image,
    "budget": _budget,
    "help": lambda session, rest: HELP,
}
