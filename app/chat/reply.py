"""Replies of a chat's commands, their help, and their arguments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pleinair.tools.types import BadInput

if TYPE_CHECKING:
    from pleinair.app.chat.session import ChatSession
    from pleinair.app.chat.thread import MessageOptions, Thread
    from pleinair.app.runs.row import Run

HELP = """\
Describe an image, then what to change: "now make it night", "not that bird", "add a red car",
"remove the owl", "replace the owl with a robin", "bigger", "make it 16:9", "a @1 on a beach".
Without a slash work too: help, list, show, undo, redo, refs, trace, tray, save FILE, quit, exit.
/list                  list the requests with their images
/show [N]              show request N with all its versions, or the last one
/undo [N]              continue from before the last request, or the last N
/redo                  take back an undo
/redraw [SEED]         repeat the last request with another seed, as a new version
/version N             continue from version N of the last request
/graph NAME PROMPT     draw one request with another graph, such as pleinair
/fork N                continue from request N in a new thread; this one stays as it is

/refs                  list the references retrieved for each concept
/veto N …              never use these references of the list; again: allow them
/pin N …               always show their concepts by these references; again: unpin them
/approve               pin the references of the last image; if the run waits: draw its plan,
                       with what /veto, /pin, /give and /use have changed since
/approve no            stop the run that waits
/approve prompt TEXT   draw another prompt instead
/approve OLD = NEW     show another thing instead of concept OLD; its references are retrieved
/accept                accept the image so far of a run that waits, or that another window works on
/stop                  end it with its images so far
/ask WHEN              ask for approval before the first image with references (WHEN: references),
                       before the draft too (draft), or never (never)

/tray                  list the images of the tray; each has a handle, such as @1
/give FILE [CONCEPT]   put an image of yours into the tray, which shows a concept, or the whole image
/reuse [N]             put the image of request N into the tray, or the last one
/keep N …              put references of the list of /refs into the tray
/concept @N [CONCEPT]  set what an image of the tray shows; without a concept: the whole image
/use @N …              use images of the tray; again: keep them, unused
/drop @N …             remove images from the tray
/strength X            set the strength of all references, 0 to 1; none: the generator's own

/threads [WORDS]       list the threads that changed last, or those with some words
/thread N              continue another thread, by its number in that list or its id
/new                   begin a new thread with the same settings
/title TEXT            name this thread
/image [KEY=VALUE …]   show or set options of the image, such as width=512; KEY=none: the generator's own
/budget [KEY=VALUE …]  show or set the limits of a request: attempts, images, mllm_calls, tokens, usd,
                       seconds; KEY=none lifts a limit
/save FILE             copy the last image to a file or folder
/trace [N]             show the steps of request N, or of the last one
/help                  show this
/quit                  quit, as Ctrl-D does. While a run is at work here: Ctrl-C stops it after its current
                       step; `pleinair runs accept last` in another window accepts its image so far"""
MAX_DIGITS = 9  # of a number in a command
Part = str | Path  # of a reply: text, or an image to show


@dataclass(frozen=True)
class Reply:
    """Answer to a line."""

    parts: list[Part] = field(default_factory=list)
    line: str = ""  # that is to be submitted
    options: MessageOptions | None = None  # of it
    runs: list[Run] = field(default_factory=list)  # that are to be executed
    thread: Thread | None = None  # that the chat goes on with


Command = Callable[["ChatSession", str], "str | list[Part] | Reply"]


def read_words(command: str, text: str) -> list[str]:
    """Split a text into words, of which quoted ones may have spaces; raises `BadInput`."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BadInput(f"/{command}: {error}") from error


def read_numbers(command: str, text: str) -> list[int]:
    """Read the numbers of a command, separated by spaces or commas."""
    words = text.replace(",", " ").split()
    if others := [word for word in words or [""] if not word.isdecimal() or len(word) > MAX_DIGITS]:
        value = repr(others[0][:40]) if others[0] else "nothing"
        raise BadInput(f"{usage(command)}: needs a number, got {value}")
    return [int(word) for word in words]


def read_number(command: str, text: str) -> int:
    """Read the one number of a command; raises `BadInput`."""
    number, *others = read_numbers(command, text)
    if others:
        raise BadInput(f"{usage(command)}: needs one number, got {1 + len(others)}")
    return number


def optional_number(command: str, text: str) -> int | None:
    """Read the number of a command, None if there is none; raises `BadInput`."""
    return read_number(command, text) if text else None


def usage(command: str) -> str:
    """Return a command with its arguments, from the help."""
    lines = (re.split(r"\s{2,}", line)[0] for line in HELP.splitlines() if line.startswith("/"))
    return next(line for line in lines if line.split()[0] == f"/{command}")
