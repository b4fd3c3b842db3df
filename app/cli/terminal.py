"""Text of others on a terminal: captions, prompts and answers must not steer it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def printable(text: str) -> str:
    """Return a text on one line, with control characters replaced."""
    return "".join(char if char.isprintable() else "�" for char in " ".join(text.split()))


def printable_json(value: object) -> str:
    """Write JSON on one line; what a terminal would obey is escaped, so the value read back is the same."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def quiet() -> None:
    """Keep the hub's own log of its tries and pauses back; what fails in the end is told by us.

    Call it before `huggingface_hub` is imported: that reads the variable then, as a worker's process does. A
    user's own HF_HUB_VERBOSITY counts.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error, only where somebody can see it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
