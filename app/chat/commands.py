"""Answers to the lines of a chat: commands, which begin with a slash, and questions about the program."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.agent.react.schemas import Pin
from pleinair.app.chat.about import about
from pleinair.app.texts import is_utf8, printable
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.chat.messages import ChatMessage
    from pleinair.app.chat.references import ChatReference
    from pleinair.app.chat.session import ChatSession
    from pleinair.app.chat.thread import Thread

HELP = """\
Describe an image, then what to change: "now make it night", "not that bird", "add a red car",
"remove the wren", "replace the finch with a wren", "bigger", "make it 16:9". Without a slash work too:
help, list, show, undo, redo, refs, trace, save FILE, quit, exit.
/list                  list the requests with their images
/show [N]              show request N, or the last one
/undo [N]              continue from before the last request, or the last N
/redo                  take back an undo
/refs                  list the references retrieved for each concept
/veto N …              never use these references of the list; again: allow them
/pin N …               always show their concepts by these references; again: unpin them
/approve               pin the references of the last image
/give FILE CONCEPT     show a concept by an image of yours
/fork N                continue from request N, without the requests after it
/image [KEY=VALUE …]   show or set options of the image, such as width=512; KEY=none: the generator's own
/budget [KEY=VALUE …]  show or set the limits of a request: attempts, images, mllm_calls, tokens, usd,
                       seconds; KEY=none lifts a limit
/save FILE             copy the last image to a file or folder
/trace [N]             show the steps of request N, or of the last one
/help                  show this
/quit                  quit, as Ctrl-D does; Ctrl-C stops a run after its current step"""
MAX_DIGITS = 9  # of a number in a command
Part = str | Path  # of a reply: text, or an image to show


@dataclass(frozen=True)
class Reply:
    """Answer to a line."""

    parts: list[Part] = field(default_factory=list)
    line: str = ""  # that is to be submitted
    thread: Thread | None = None  # that the chat goes on with


Command = Callable[["ChatSession", str], "str | list[Part] | Reply"]


_BARE = re.compile(r"(help|list|show|undo|redo|refs|trace)( \d{1,9})?[.!?]*", re.IGNORECASE)
_SAVE = re.compile(r"save(?: (?:it|the (?:image|picture)))?(?: (?:as|to|in))? (\S*[./~]\S*)", re.IGNORECASE)


def as_command(line: str) -> str:
    """Return a line that is a command without its slash with it, any other line as it is."""
    if match := _BARE.fullmatch(line):
        return f"/{match[1].lower()}{match[2] or ''}"
    if match := _SAVE.fullmatch(line):
        return f"/save {match[1]}"
    return "/help" if line.strip("?") == "" else line


def answer(line: str, session: ChatSession) -> Reply:
    """Carry out a command or answer a question about the program; any other line is to be submitted.

    Raises `BadInput` for an unknown command, and for what a command or the session refuses.
    """
    if not is_utf8(line):
        raise BadInput(f"{printable(line[:80])!r}: not valid UTF-8", "Nothing was drawn.")
    line = as_command(line)
    if line.startswith("/"):
        return _carry_out(line, session)
    if reply := about(line, session):
        return Reply([reply])
    return Reply(line=line)


def _carry_out(line: str, session: ChatSession) -> Reply:
    name, _, rest = line[1:].partition(" ")
    if name not in COMMANDS:
        commands = ", ".join(f"/{command}" for command in COMMANDS)
        raise BadInput(f"/{name[:40]}: no such command; there are: {commands}, /quit")
    reply = COMMANDS[name](session, rest.strip())
    if isinstance(reply, Reply):
        return reply
    return Reply([reply] if isinstance(reply, str) else reply)


def _list(session: ChatSession, rest: str) -> list[Part]:
    parts: list[Part] = []
    for message in session.messages():
        parts += [f"{message.number:>3}  {printable(message.prompt[:200])} ({_status(message)})"]
        parts += [message.version.picture] if message.version.picture else []
    return parts or ["There is no request yet."]


def _status(message: ChatMessage) -> str:
    count = len(message.versions)
    return message.version.status + (f", version {message.current + 1} of {count}" if count > 1 else "")


def _show(session: ChatSession, rest: str) -> list[Part]:
    message = session.message(_optional_number("show", rest))
    parts: list[Part] = [f"request {message.number}: {printable(message.prompt)}"]
    for number, version in enumerate(message.versions):
        mark = " (current)" if len(message.versions) > 1 and number == message.current else ""
        parts += [printable(f"{version.status}: {version.reason}"), f"run {version.run}{mark}"]
        parts += [version.picture] if version.picture else []
    return parts


def _undo(session: ChatSession, rest: str) -> str:
    number = _optional_number("undo", rest)
    count = 1 if number is None else number
    runs = session.thread.runs
    if runs and not 1 <= count <= len(runs):
        raise BadInput(f"{_usage('undo')}: must be 1 to {len(runs)}, got {count}")
    lines = [f"Undone: {printable(session.undo()[:200])}" for _ in range(count)]
    place = (
        f"Continuing from request {count}."
        if (count := len(session.thread.turns))
        else "The chat begins anew."
    )
    return "\n".join([*lines, place])


def _redo(session: ChatSession, rest: str) -> str:
    prompt = printable(session.redo()[:200])
    return f"Done again: {prompt}\nContinuing from request {len(session.thread.turns)}."


def _save(session: ChatSession, rest: str) -> str:
    words = _words("save", rest)
    if len(words) != 1:
        raise BadInput(f"{_usage('save')}: needs a file or a folder")
    return f"Saved as {printable(str(session.save(words[0])))}."


def _trace(session: ChatSession, rest: str) -> str:
    from pleinair.app.api import find, home
    from pleinair.app.trace.show import Report

    run = session.message(_optional_number("trace", rest)).version.run
    lines = [
        f"  {printable(label):<12} {printable(text)}" if text else printable(label)
        for label, text in Report(find(run), home()).lines()
    ]
    return "\n".join([*lines, f"`pleinair trace export {run} storyboard.html` writes it as a page."])


def _words(command: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BadInput(f"/{command}: {error}") from error


def _refs(session: ChatSession, rest: str) -> str:
    references = enumerate(session.references(), 1)
    lines = [f"{number:>3}  {_reference_line(reference)}" for number, reference in references]
    return "\n".join(lines) or "Nothing was retrieved yet."


def _reference_line(reference: ChatReference) -> str:
    from pleinair.app.trace.trace import score_text

    marks = f"  [{', '.join(reference.marks)}]" if reference.marks else ""
    hit = reference.hit
    by = f" (by {hit.caption_model})" if hit.caption_model else ""
    return printable(f"{reference.concept}: {hit.id} {score_text(hit)} {hit.caption[:60]}{by}") + marks


def _veto(session: ChatSession, rest: str) -> str:
    ids = dict.fromkeys(reference.hit.id for reference in session.veto(*_read_numbers("veto", rest)))
    words = {id: "not used any more" if id in session.thread.vetoes else "allowed" for id in ids}
    return "\n".join(f"{printable(id)} is {word}." for id, word in words.items())


def _pin(session: ChatSession, rest: str) -> str:
    lines = []
    for reference in session.pin(*_read_numbers("pin", rest)):
        pinned = Pin(concept=reference.concept, hit=reference.hit) in session.thread.pins
        word = "shown by" if pinned else "no longer pinned to"
        lines.append(printable(f"{reference.concept} is {word} {reference.hit.id}."))
    return "\n".join(lines)


def _approve(session: ChatSession, rest: str) -> str:
    lines = [f"{reference.concept} is shown by {reference.hit.id}." for reference in session.approve()]
    return "\n".join(map(printable, lines)) or "The last image was generated without references."


def _add_input_image(session: ChatSession, rest: str) -> str:
    words = _words("give", rest)
    if len(words) < 2:
        raise BadInput(f"{_usage('give')}: needs a file and the concept that it shows")
    image = session.add_image(words[0], concept=" ".join(words[1:]))
    return printable(f"{image.concept} is shown by {image.name}, {image.handle}.")


def _fork(session: ChatSession, rest: str) -> Reply:
    number = _read_number("fork", rest)
    session.message(number)
    thread = session.fork(number)
    text = f"Continuing from request {number} in a new thread; {session.thread.id} stays as it is."
    return Reply([text], thread=thread)


def _budget(session: ChatSession, rest: str) -> str:
    return _option_lines(session.set_budget(_read_options(rest)), "no limit")


def _image(session: ChatSession, rest: str) -> str:
    return _option_lines(session.set_image_options(_read_options(rest)), "the generator's own")


def _read_options(text: str) -> dict[str, Any]:
    """Read `key=value` words; a value with spaces is quoted, and "none" is no value."""
    from pleinair.app.settings import assignments

    try:
        values = assignments(shlex.split(text))
    except (ValueError, RecursionError) as error:  # also a number of too many digits, or nested too deep
        raise BadInput(f"{text[:80]!r}: {error}") from error
    return {key: None if value == "none" else value for key, value in values.items()}


def _option_lines(values: Iterable[tuple[str, Any]], default: str) -> str:
    return "\n".join(f"{key} {default if value is None else printable(str(value))}" for key, value in values)


def _read_numbers(command: str, text: str) -> list[int]:
    """Read the numbers of a command, separated by spaces or commas."""
    words = text.replace(",", " ").split()
    if others := [word for word in words or [""] if not word.isdecimal() or len(word) > MAX_DIGITS]:
        value = repr(others[0][:40]) if others[0] else "nothing"
        raise BadInput(f"{_usage(command)}: needs a number, got {value}")
    return [int(word) for word in words]


def _read_number(command: str, text: str) -> int:
    number, *others = _read_numbers(command, text)
    if others:
        raise BadInput(f"{_usage(command)}: needs one number, got {1 + len(others)}")
    return number


def _optional_number(command: str, text: str) -> int | None:
    return _read_number(command, text) if text else None


def _usage(command: str) -> str:
    """Return a command with its arguments, from the help."""
    lines = (re.split(r"\s{2,}", line)[0] for line in HELP.splitlines() if line.startswith("/"))
    return next(line for line in lines if line.split()[0] == f"/{command}")


COMMANDS: dict[str, Command] = {
    "list": _list,
    "show": _show,
    "undo": _undo,
    "redo": _redo,
    "refs": _refs,
    "veto": _veto,
    "pin": _pin,
    "approve": _approve,
    "give": _add_input_image,
    "fork": _fork,
    "image": _image,
    "budget": _budget,
    "save": _save,
    "trace": _trace,
    "help": lambda session, rest: HELP,
}
