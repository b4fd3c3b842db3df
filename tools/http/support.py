"""What a server takes for a model: learnt from its refusals, remembered in memory and on disk.

OpenAI's interface has many dialects. A request begins in the form of the settings; each refusal takes one
step down, and no step is taken twice, so that the number of tries is bounded. Refused tries cost no tokens
and count as no retries and no MLLM calls. Not covered: a server that ignores what it does not take.
"""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path
from threading import Lock
from typing import Literal

from pydantic import Field, ValidationError

from pleinair.tools.storage.files import write_whole
from pleinair.tools.types import PleinairError, Value

Answers = Literal["json_schema", "function_calling", "json_object", "text"]
Choice = Literal["named", "required", "auto", "none"]
Part = Literal[
    "answers", "tools", "tool_choice", "parallel_tool_calls", "cap", "temperature", "detail", "strict",
    "images", "roles", "cache_control",
]  # fmt: skip

_ANSWER_FORMS: tuple[Answers, ...] = ("json_schema", "function_calling", "json_object", "text")
_CHOICES: tuple[Choice, ...] = ("named", "required", "auto", "none")
_CAPS = ("max_tokens", "max_completion_tokens")
_MIN_CAP = 64  # tokens; below, the cap is left to the server
_MAX_AGE = 30 * 86_400.0  # seconds until a server is tried anew
_OPTIONAL = frozenset(("parallel_tool_calls", "temperature", "detail", "strict", "cache_control"))

log = logging.getLogger(__name__)


class Support(Value):
    """What a server takes for one model, as far as it is known."""

    answers: Answers | None = None  # None: as the settings say
    tool_choice: Choice = "named"
    cap_name: str = ""  # of the limit of tokens; "": by the server's address, "none": it is not sent
    cap: int = Field(default=0, ge=0)  # tokens that the server allows at most; 0: not known
    without: frozenset[str] = frozenset()  # parameters that are not sent
    merges_roles: bool = False  # whether the system message and neighbours of one role are joined
    images: bool | None = None  # whether the model takes them; None: not tried
    edits: bool | None = None  # whether an image server has edits; None: not tried
    answered: bool = False  # whether there was an answer in this form
    keeps_schema: bool = False  # whether answers fit a schema that the text does not contain


class Refusal(Value):
    """Part of a request that a server refuses, and the size that it allows if it states one."""

    part: Part
    size: int = 0


class Request(Value):
    """What was sent, as far as a server may refuse it."""

    support: Support = Support()  # by which the request was made
    answers: Answers | None = None  # None: no schema was asked for
    tools: bool = False
    cap_name: str = ""  # "": no cap was sent
    cap: int = 0
    images: bool = False
    cache_marks: bool = False


def stepped_down(current: Support, refusal: Refusal, sent: Request) -> Support | None:
    """Return what is left after a refusal of what was sent; None if there is nothing left to change."""
    if current != sent.support:  # another thread has learnt something
        return current
    part, support = refusal.part, sent.support
    if part == "answers" or (part == "tools" and sent.answers):
        return _with_next(support, "answers", _ANSWER_FORMS, sent.answers) if sent.answers else None
    if part == "tool_choice":
        return _with_next(support, "tool_choice", _CHOICES, support.tool_choice)
    if part == "cap":
        return _smaller_cap(refusal.size, sent)
    if part == "roles" and not support.merges_roles:
        return support.model_copy(update={"merges_roles": True})
    if part in _OPTIONAL and part not in support.without:
        return support.model_copy(update={"without": support.without | {part}})
    return None


def _with_next(support: Support, name: str, choices: tuple[str, ...], current: str) -> Support | None:
    rest = choices[choices.index(current) + 1 :]
    return support.model_copy(update={name: rest[0]}) if rest else None


def _smaller_cap(size: int, sent: Request) -> Support:
    """Rename the cap of tokens, or lower it to the stated size or half of it; at last leave it out."""
    name, other = sent.cap_name, _CAPS[1 - _CAPS.index(sent.cap_name)]
    if not size:
        name = "none" if sent.support.cap_name == name else other
    elif size < _MIN_CAP:
        name, size = "none", 0
    return sent.support.model_copy(update={"cap_name": name, "cap": size})


class SupportTable:
    """Remembered support by server and model, in memory and, once there is a folder, on disk."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Support] = {}
        self._folder: Path | None = None
        self._lock = Lock()

    def open(self, folder: Path) -> None:
        """Remember in a folder too, one file a server and model; what another process learnt is read."""
        with self._lock:
            self._folder = folder

    def get(self, url: str, model: str) -> Support:
        """Return what is known, the defaults where nothing is."""
        with self._lock:
            if (url, model) not in self._entries:
                self._entries[url, model] = self._read(url, model) or Support()
            return self._entries[url, model]

    def set(self, url: str, model: str, support: Support) -> None:
        """Remember; a disk that cannot be written to is no error."""
        with self._lock:
            if self._entries.get((url, model)) == support:
                return
            self._entries[url, model] = support
            if not (file := self._file(url, model)):
                return
            entry = _Entry(url=url, model=model, date=time.time(), support=support)
            try:
                write_whole(file, entry.model_dump_json(indent=1).encode())
            except PleinairError as error:
                log.warning("What %s supports is not remembered: %s", url, error)

    def forget(self) -> None:
        """Forget what this process has read and learnt, with the files of it."""
        with self._lock:
            for url, model in self._entries:
                if file := self._file(url, model):
                    file.unlink(missing_ok=True)
            self._entries.clear()
            self._folder = None

    def _read(self, url: str, model: str) -> Support | None:
        if not (file := self._file(url, model)):
            return None
        try:
            entry = _Entry.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return None
        is_fresh = 0 <= time.time() - entry.date < _MAX_AGE and (entry.url, entry.model) == (url, model)
        return entry.support if is_fresh else None

    def _file(self, url: str, model: str) -> Path | None:
        digest = hashlib.sha256(f"{url}\n{model}".encode()).hexdigest()
        return self._folder and self._folder / f"{digest[:16]}.json"


class _Entry(Value):
    """File of one server and model."""

    url: str
    model: str
    date: float  # seconds since 1970
    support: Support


SUPPORT = SupportTable()  # of this process


_FORMS: dict[Answers, str] = {
    "json_schema": "by JSON schemas",
    "function_calling": "by functions",
    "json_object": "in JSON mode, with the schema in the text",
    "text": "as text, with the schema in it",
}


def describe(support: Support, first: Answers = "json_schema") -> str:
    """Return in words what a server takes; `first` is the form of the settings."""
    notes = [f"answers {_FORMS[support.answers or first]}"]
    notes += [] if support.images is None else ["takes images" if support.images else "takes no images"]
    notes += [f"tool_choice {support.tool_choice!r}"] if support.tool_choice != "named" else []
    notes += [f"without {', '.join(sorted(support.without))}"] if support.without else []
    notes += [f"the cap as {support.cap_name!r}"] if support.cap_name else []
    notes += [f"at most {support.cap} tokens an answer"] if support.cap else []
    notes += ["messages of one role joined"] if support.merges_roles else []
    return ", ".join(notes)
