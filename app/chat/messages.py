"""Messages of a thread with their versions, as an interface shows them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app.chat.thread import Message
from pleinair.app.runs.request import DrawRequest, read_request
from pleinair.app.runs.results import files
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Runs
from pleinair.app.runs.tables import OPEN
from pleinair.tools.types import BadInput, Picture

DELETED = "deleted"  # status of a version whose run was deleted


@dataclass(frozen=True)
class ChatVersion:
    """Run of a message."""

    run: str
    status: str  # its ending, or queued, running, waiting, deleted, damaged
    reason: str = ""  # of its ending
    prompt: str = ""  # as sent: with concepts in place of handles, and edits carried out
    graph: str = ""
    seed: int = 0
    best: Picture | None = None  # in the run's own store
    picture: Path | None = None  # the file in the folder of results, if it is there
    question: ApprovalRequest | None = None  # that a person has to answer

    @property
    def is_open(self) -> bool:
        """Whether the run has not ended."""
        return self.status in OPEN


@dataclass(frozen=True)
class ChatMessage:
    """Request of a thread."""

    number: int  # from 1
    prompt: str  # as typed
    versions: tuple[ChatVersion, ...]
    current: int  # index of the version from which the next message continues

    @property
    def version(self) -> ChatVersion:
        """The current version."""
        return self.versions[self.current]


def message_of(number: int, message: Message, runs: Runs) -> ChatMessage:
    """Return a message with the rows of its runs."""
    versions = tuple(_version(run, row_of(run, runs)) for run in message.runs)
    return ChatMessage(number, message.prompt, versions, message.current)


def row_of(run_id: str, runs: Runs) -> Run | None:
    """Return the row of a run, None if it was deleted."""
    try:
        return runs.get(run_id)
    except BadInput:
        return None


def _version(run_id: str, row: Run | None) -> ChatVersion:
    if row is None or row.damage:
        return ChatVersion(run_id, row.status if row else DELETED)
    request = _request(row.request_json)
    version = ChatVersion(
        run_id, row.status, "not finished", request.prompt, request.graph, row.seed, question=row.question
    )
    if row.outcome is None:
        return version
    best = row.outcome.best.picture if row.outcome.best else None
    file, _ = files(row, request)
    picture = file if best and file.exists() else None
    return replace(version, status=row.outcome.ending, reason=row.outcome.reason, best=best, picture=picture)


@lru_cache(maxsize=256)  # a page lists the messages of a thread again and again
def _request(text: str) -> DrawRequest:
    return read_request(text)
