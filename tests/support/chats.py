"""Chats whose lines a test writes."""

import io
from typing import Any

from rich.console import Console

from pleinair.app.cli.chat import run_chat
from pleinair.app.session import ChatSession


def chat_output(session: ChatSession, *lines: str | BaseException, **terminal: Any) -> str:
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

    run_chat(session, reader, Console(file=output, width=200, **terminal))
    return output.getvalue()
