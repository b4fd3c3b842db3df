"""Chats whose lines a test writes."""

import io
from typing import Any

from rich.console import Console

from pleinair.agent.react.schemas import Pin
from pleinair.app.chat.references import ChatReference
from pleinair.app.chat.session import ChatSession
from pleinair.app.chat.thread import MessageOptions, Thread
from pleinair.app.chat.threads import Threads
from pleinair.app.cli.chat import run_chat
from pleinair.app.runs.row import Run


class Chat:
    """Thread of the configured home, as a test looks at it and changes it."""

    def __init__(self, thread: Thread | None = None, **fields: Any) -> None:
        self.thread = thread or Thread.begin(**fields)

    @property
    def threads(self) -> Threads:
        """The store of the configured home."""
        return Threads()

    @property
    def session(self) -> ChatSession:
        """A session for reading."""
        return self.threads.viewed(self.thread)

    @property
    def runs(self) -> list[str]:
        """Ids of the current versions."""
        return list(self.thread.runs)

    @property
    def vetoes(self) -> set[str]:
        """Ids of the vetoed hits."""
        return set(self.thread.vetoes)

    @property
    def pins(self) -> dict[str, Pin]:
        """Pins by concept."""
        return {pin.concept: pin for pin in self.thread.pins}

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings of the next messages."""
        return self.thread.overrides

    def set(self, **changes: Any) -> None:
        """Store a thread with other fields."""
        with self.threads.opened(self.thread) as session:
            session.thread = session.thread.model_copy(update=changes)
        self.thread = session.thread

    def references(self) -> list[ChatReference]:
        """References of the last request."""
        return self.session.references()

    def submit(self, line: str, client: str | None = None, **options: Any) -> Run:
        """Submit a message and return its first run."""
        with self.threads.opened(self.thread) as session:
            (run, *_) = session.submit(line, MessageOptions(**options), client)
        self.thread = session.thread
        return run


def chat_output(chat: Chat, *lines: str | BaseException, **terminal: Any) -> str:
    """Run a chat with these lines and return its output; the reader raises the exceptions among them.

    `terminal` are options of rich's console.
    """
    pending, output = iter(lines), io.StringIO()

    def reader(prompt: str) -> str:
        line = next(pending, None)
        if line is None:
            raise EOFError
        if isinstance(line, BaseException):
            raise line
        return line

    console = Console(file=output, width=200, **terminal)
    chat.thread = run_chat(chat.threads, chat.thread, reader, console)
    return output.getvalue()
