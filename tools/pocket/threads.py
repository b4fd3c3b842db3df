"""Threads of the pocket models: one, because more of them wait for each other longer than they compute."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from pleinair.tools.threads import limited_threads

PREFIX = "pocket/"  # of the folders of these models in the settings


def one_thread(folder: str) -> AbstractContextManager[None]:
    """Let torch use one thread in a block if `folder` is a pocket model's."""
    return limited_threads(1) if folder.startswith(PREFIX) else nullcontext()
