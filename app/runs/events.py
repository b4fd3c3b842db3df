"""Append-only event log of a run: one JSON line per event.

The terminal, the storyboard, replay and diff read only this. It holds names of images, no pixels. A step may
run more than once, so it may be logged twice; a snapshot holds everything that the checkpoint does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from operator import not_
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator

from pleinair.agent.approval.types import Approval, ApprovalRequest
from pleinair.app.runs.event_file import EventFile
from pleinair.app.runs.event_rows import EventRows, EventTable
from pleinair.app.runs.notes import Note
from pleinair.tools.prompt_options import PromptOption
from pleinair.tools.retrieval.changes import IndexAge
from pleinair.tools.types import (
    Attempt,
    BadInput,
    Concept,
    Outcome,
    Repair,
    Retrieval,
    Usage,
    Value,
)

VERSION: Literal[1] = 1
Kind = Literal[
    "started", "resumed", "step_started", "step_finished", "progress", "asked", "answered", "ended"
]
# on disk when `write` returns
DURABLE: tuple[Kind, ...] = ("started", "resumed", "step_finished", "asked", "answered", "ended")
MAX_ABOUT = 60  # characters of a call's subject
SUBJECTS = ("concept", "wish", "picture", "ids", "reason")  # arguments; the first one is the call's subject
LISTS = ("repairs", "references")  # arguments, each item of which has a concept


class Payload(Value, extra="allow"):
    """Base of the payloads: frozen, with any further fields that a graph adds."""


class Call(Value):
    """Tool call of an MLLM, as shown to people."""

    name: str
    about: str = ""  # its concept, the request, an image's number …

    @classmethod
    def of(cls, call: Mapping[str, Any]) -> Call:
        """Build a call from LangChain's `name` and `args`."""
        arguments: Mapping[str, Any] = call["args"]
        items = [item for key in LISTS for item in arguments.get(key, ()) if isinstance(item, dict)]
        concepts = list(dict.fromkeys(str(item["concept"]) for item in items))
        subject = next((arguments[key] for key in SUBJECTS if key in arguments), concepts)
        about = ", ".join(map(str, subject)) if isinstance(subject, list | tuple) else str(subject)
        short = about if len(about) <= MAX_ABOUT else f"{about[: MAX_ABOUT - 1]}…"
        return cls(name=call["name"], about=short)

    def __str__(self) -> str:
        about = self.about if self.about.isdecimal() else self.about and repr(self.about)
        return f"{self.name} {about}".strip()


class StepStarted(Payload):
    """Start of a node of the graph."""

    call: Call | None = None  # of an MLLM, which the node executes


class Progress(Payload):
    """Progress of a step, a text of the MLLM, or an error that it receives."""

    done: int | None = None
    total: int | None = None
    text: str = ""
    error: str = ""
    ahead: int | None = None  # runs that have the device first


class Changes(Payload):
    """Fields of the state: those that a node changed, or all."""

    concepts: tuple[Concept, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    retrievals: tuple[Retrieval, ...] = ()
    usage: tuple[Usage, ...] = ()
    repairs: tuple[Repair, ...] | None = None  # None: unchanged
    outcome: Outcome | None = None
    vetoes: tuple[str, ...] = Field(default=(), exclude_if=not_)  # ids of hits; of `react`


class StepFinished(Changes):
    """End of a node, with its changes of the state."""

    calls: tuple[int, ...] = Field(default=(), exclude_if=not_)  # numbers of its MLLM calls, as stored


class Branch(Value):
    """Run and step at which a fork branched off."""

    run: str
    step: str


class Snapshot(Changes):
    """The run's request and everything that its checkpoint holds."""

    run: str
    prompt: str
    graph: str
    seed: int
    parent: Branch | None = None
    models: dict[str, str] = {}
    # whose images were retrieved, once the run has ended
    library: IndexAge | None = Field(default=None, exclude_if=lambda age: age is None)
    prompt_options: tuple[PromptOption, ...] = Field(default=(), exclude_if=lambda options: not options)
    notes: tuple[Note, ...] = Field(default=(), exclude_if=lambda notes: not notes)


class Started(Snapshot):
    """Start of a run."""


class Resumed(Snapshot):
    """Continuation of a run from its last checkpoint."""


class Asked(Payload):
    """Question to a person, for which the run waits."""

    question: ApprovalRequest


class Answered(Payload):
    """Answer of a person."""

    answer: Approval


class Ended(Snapshot):
    """End of a run."""

    outcome: Outcome
    versions: dict[str, str] = {}


PAYLOADS: dict[Kind, type[Payload]] = {
    "started": Started,
    "resumed": Resumed,
    "step_started": StepStarted,
    "step_finished": StepFinished,
    "progress": Progress,
    "asked": Asked,
    "answered": Answered,
    "ended": Ended,
}
KINDS = {payload: kind for kind, payload in PAYLOADS.items()}
OnEvent = Callable[["Event"], None]
AnyPayload = TypeVar("AnyPayload", bound=Payload)


class Event(Value):
    """One line of the log."""

    v: Literal[1] = VERSION
    seq: int = Field(ge=0)  # without gaps, even after crashes
    at: float  # seconds since the epoch
    kind: Kind
    step: str = ""  # node of the graph
    attempt: int = Field(default=0, ge=0)  # the current one: the number of images before it
    data: SerializeAsAny[Payload]

    @field_validator("data", mode="before")
    @classmethod
    def _of_its_kind(cls, data: Any, info: ValidationInfo) -> Any:
        kind = info.data.get("kind")
        return PAYLOADS[kind].model_validate(data) if kind and not isinstance(data, Payload) else data


class EventLog:
    """Writer of a log; for the holder of the run only, from any of its threads.

    Args:
        log: of the run, as of `Paths.events`.
        on_event: called after each event is written.
        fence: of the holder, which the rows of a database are written with.
    """

    def __init__(self, log: Path | EventRows, on_event: OnEvent | None = None, fence: int = 0) -> None:
        self._on_event, self._lock = on_event, threading.Lock()
        self._writer = EventFile(log) if isinstance(log, Path) else EventTable(log, fence)

    def write(self, payload: Payload, step: str = "", attempt: int = 0) -> None:
        """Append one event, then call `on_event`; an event that changes the state is on disk on return.

        Raises `DiskFull` or `PleinairError`; the log then ends with the previous event.
        """
        with self._lock:
            seq, kind = self._writer.count, KINDS[type(payload)]
            event = Event(seq=seq, at=time.time(), kind=kind, step=step, attempt=attempt, data=payload)
            self._writer.append(event.model_dump_json().encode(), durable=kind in DURABLE)
        if self._on_event:
            self._on_event(event)

    def close(self) -> None:
        """Close the log, if it is open."""
        with self._lock:
            self._writer.close()


class Readable(NamedTuple):
    """The events of a log that can be read, and the numbers of its damaged lines, from 1."""

    events: list[Event]
    damaged: list[int]


def read_readable(path: Path | EventRows) -> Readable:
    """Read a log without an incomplete last line, which a crash leaves; newer versions' lines are damaged."""
    return parse(path.read_bytes() if not isinstance(path, Path) or path.exists() else b"")


def parse(text: bytes) -> Readable:
    """Return the events of the complete lines of a log."""
    log = Readable([], [])
    for number, line in enumerate(text.split(b"\n")[:-1], 1):
        try:
            log.events.append(Event.model_validate_json(line))
        except ValidationError:
            log.damaged.append(number)
    return log


def read(path: Path | EventRows) -> list[Event]:
    """Read all events, as `read_readable` does; raise `BadInput` for a damaged line."""
    events, damaged = read_readable(path)
    if damaged:
        raise BadInput(f"{path}: line {damaged[0]} is not an event of version {VERSION}")
    return events


def payloads(events: Sequence[Event], kind: type[AnyPayload]) -> list[AnyPayload]:
    """Return the payloads of one kind, or of its subclasses."""
    return [event.data for event in events if isinstance(event.data, kind)]


def has_image(path: Path | EventRows) -> bool:
    """Return whether a log has an image of its run."""
    return any(changes.attempts for changes in payloads(read_readable(path).events, Changes))
