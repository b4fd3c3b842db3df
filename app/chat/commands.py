"""Answers to the lines of a chat: commands, which begin with a slash, and questions about the program."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pleinair.agent.react.schemas import Pin
from pleinair.app.chat.about import about
from pleinair.app.chat.reply import (
    HELP,
    Command,
    Part,
    Reply,
    optional_number,
    read_numbers,
    read_words,
    usage,
)
from pleinair.app.chat.thread_commands import THREAD_COMMANDS, numbered_references
from pleinair.app.chat.tray_commands import TRAY_COMMANDS
from pleinair.app.texts import is_utf8, printable
from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.chat.messages import ChatMessage
    from pleinair.app.chat.session import ChatSession

_BARE = re.compile(r"(help|list|show|undo|redo|refs|trace|tray)( \d{1,9})?[.!?]*", re.IGNORECASE)
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
    message = session.message(optional_number("show", rest))
    parts: list[Part] = [f"request {message.number}: {printable(message.prompt)}"]
    for number, version in enumerate(message.versions):
        mark = " (current)" if len(message.versions) > 1 and number == message.current else ""
        parts += [printable(f"{version.status}: {version.reason}"), f"run {version.run}{mark}"]
        parts += [version.picture] if version.picture else []
    return parts


def _undo(session: ChatSession, rest: str) -> str:
    number = optional_number("undo", rest)
    count = 1 if number is None else number
    runs = session.thread.runs
    if runs and not 1 <= count <= len(runs):
        raise BadInput(f"{usage('undo')}: must be 1 to {len(runs)}, got {count}")
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
    words = read_words("save", rest)
    if len(words) != 1:
        raise BadInput(f"{usage('save')}: needs a file or a folder")
    return f"Saved as {printable(str(session.save(words[0])))}."


def _trace(session: ChatSession, rest: str) -> str:
    from pleinair.app.api import find, home
    from pleinair.app.trace.show import Report

    run = session.message(optional_number("trace", rest)).version.run
    lines = [
        f"  {printable(label):<12} {printable(text)}" if text else printable(label)
        for label, text in Report(find(run), home()).lines()
    ]
    return "\n".join([*lines, f"`pleinair trace export {run} storyboard.html` writes it as a page."])


def _refs(session: ChatSession, rest: str) -> str:
    return "\n".join(numbered_references(session)) or "Nothing was retrieved yet."


def _veto(session: ChatSession, rest: str) -> str:
    ids = dict.fromkeys(reference.hit.id for reference in session.veto(*read_numbers("veto", rest)))
    words = {id: "not used any more" if id in session.thread.vetoes else "allowed" for id in ids}
    return "\n".join(f"{printable(id)} is {word}." for id, word in words.items())


def _pin(session: ChatSession, rest: str) -> str:
    lines = []
    for reference in session.pin(*read_numbers("pin", rest)):
        pinned = Pin(concept=reference.concept, hit=reference.hit) in session.thread.pins
        word = "shown by" if pinned else "no longer pinned to"
        lines.append(printable(f"{reference.concept} is {word} {reference.hit.id}."))
    return "\n".join(lines)


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


COMMANDS: dict[str, Command] = {
    "list": _list,
    "show": _show,
    "undo": _undo,
    "redo": _redo,
    "refs": _refs,
    "veto": _veto,
    "pin": _pin,
    "image": _image,
    "budget": _budget,
    "save": _save,
    "trace": _trace,
    "help": lambda session, rest: HELP,
    **TRAY_COMMANDS,
    **THREAD_COMMANDS,
}
