"""Chat thread as it is stored: messages, images of its tray, and decisions about references."""

from __future__ import annotations

import secrets
import time
from typing import Any

from pydantic import Field

from pleinair.agent.react.schemas import Pin
from pleinair.app.runs.database import Connection
from pleinair.tools.types import Hit, Picture, Reference, Value

WRITE = (
    "INSERT INTO threads (id, updated, words, thread_json) VALUES (?, ?, ?, ?) ON CONFLICT (id) "
    "DO UPDATE SET updated = excluded.updated, words = excluded.words, thread_json = excluded.thread_json"
)
GRAPH = "react"  # of messages, unless a message chooses another one
IMAGE = "image."  # beginning of the overrides that are options of the image
INPUT_IMAGE = "input image of a chat"  # source of an image that a person added
MAX_TITLE = 80  # characters


class TrayImage(Value):
    """Image of a thread's tray; its handle is never used for another image of the thread."""

    handle: str = Field(pattern=r"^@[1-9][0-9]*$")
    picture: Picture  # in the home's store of input images
    hit: Hit  # with its name as the caption, and its rights
    concept: str = ""  # what it shows; "": an input image of the whole request
    used: bool = True  # whether requests are sent with it

    @property
    def name(self) -> str:
        """The name of its file, the caption of a library image, or the prompt of an earlier result."""
        return self.hit.caption or self.hit.id

    @property
    def reference(self) -> Reference:
        """The image as a reference of its concept."""
        return Reference(concept=self.concept, hit=self.hit, picture=self.picture)


class Decisions(Value):
    """What a message takes over from before it, and what an undo restores."""

    overrides: dict[str, Any] = {}  # dotted settings of the image, such as image.width
    vetoes: tuple[str, ...] = ()  # ids of hits that are never used
    pins: tuple[Pin, ...] = ()


class Message(Value):
    """Request of a thread, and its versions."""

    prompt: str  # as it was typed
    runs: tuple[str, ...]  # versions: the images of one request, and repetitions with another seed
    current: int = Field(default=0, ge=0)  # index of the version from which the next message continues
    before: Decisions = Decisions()
    base: Decisions = Decisions()  # with which the thread's decisions are compared when its run has ended
    settled: str = ""  # the version whose decisions the thread has taken over

    @property
    def run(self) -> str:
        """The run of the current version."""
        return self.runs[self.current]


class Undone(Value):
    """Message that was undone, and the decisions that a redo restores."""

    message: Message
    decisions: Decisions


class MessageOptions(Value):
    """Options of one message; None leaves a value to the prompt and the thread."""

    graph: str = GRAPH
    profile: str | None = None
    seed: int | None = None
    num_images: int | None = None  # each image is a version
    overrides: dict[str, Any] = {}  # dotted settings, such as image.negative_prompt or budget.attempts
    yes: bool = False  # several images that only the prompt asks for, and that cost money, are confirmed


class Thread(Value):
    """Chat thread, as stored in the run database."""

    id: str
    title: str = ""  # "": there is no message yet
    created: float
    updated: float
    profile: str | None = None
    out: str | None = None
    overrides: dict[str, Any] = {}  # dotted settings of all messages
    turns: tuple[Message, ...] = ()
    undone: tuple[Undone, ...] = ()  # the last one is redone first
    tray: tuple[TrayImage, ...] = ()
    handles: int = 0  # how many handles were ever given out
    vetoes: tuple[str, ...] = ()
    pins: tuple[Pin, ...] = ()
    draft: dict[str, str] = {}  # what is typed on a page and not sent yet, by field
    handled: tuple[str, str] = ("", "")  # digest of the last form that a page sent, and where it led

    @classmethod
    def begin(cls, **fields: Any) -> Thread:
        """Return a thread without messages; it is not stored."""
        now = time.time()
        id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime(now)) + secrets.token_hex(4)
        return cls(id=id, created=now, updated=now, **fields)

    @property
    def runs(self) -> tuple[str, ...]:
        """The ids of the current versions, the oldest first."""
        return tuple(message.run for message in self.turns)

    @property
    def decisions(self) -> Decisions:
        """What the next message takes over."""
        image = {key: value for key, value in self.overrides.items() if key.startswith(IMAGE)}
        return Decisions(overrides=image, vetoes=self.vetoes, pins=self.pins)

    def with_decisions(self, decisions: Decisions) -> Thread:
        """Return the thread with other decisions."""
        others = {key: value for key, value in self.overrides.items() if not key.startswith(IMAGE)}
        changes = {"vetoes": decisions.vetoes, "pins": decisions.pins}
        return self.model_copy(update=changes | {"overrides": others | decisions.overrides})

    def has_run(self, run_id: str) -> bool:
        """Return whether a run is a version of one of its messages."""
        return any(run_id in message.runs for message in self.turns)

    def write(self, db: Connection) -> Thread:
        """Write the thread into the run database, within a transaction, and return it as written."""
        thread = self.model_copy(update={"updated": time.time()})
        words = "\n".join([thread.title, *(message.prompt for message in thread.turns)]).casefold()
        db.execute(
            WRITE,
            (thread.id, thread.updated, words, thread.model_dump_json()),
        )
        return thread
