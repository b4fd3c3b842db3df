"""What a client of the MCP server may do, and who it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pleinair.app.api import home
from pleinair.app.runs.detached import ensure_worker
from pleinair.app.settings import load
from pleinair.app.streams import LOCAL
from pleinair.tools.callbacks import no_callback


@dataclass(frozen=True)
class Access:
    """Rights of the client of one request.

    Args:
        client: in whose name runs are queued; the clients' runs take turns.
        files: whether it may name files of this machine, and is told their paths.
        wake: makes sure that a worker takes queued runs.
        most: runs that may wait; None: any number.
        address: of the server that also has the pages of runs; "" for none.
        apps: whether it shows pages that are resources (MCP Apps).
        is_closing: whether the server stops, so that nothing waits any more.
    """

    client: str = LOCAL
    files: bool = False
    wake: Callable[[], object] = no_callback
    most: int | None = None
    address: str = ""
    apps: bool = False
    is_closing: Callable[[], bool] = lambda: False

    def out(self, profile: str | None) -> str | None:
        """Return the folder for results, None for that of the settings.

        A program on this machine starts the server in any folder, also one that cannot be written to, so a
        relative path is one in the home.
        """
        return str(Path(home().home, load(profile).paths.out)) if self.files else None


def local_access() -> Access:
    """Return the access of a program that has started the server on its user's machine."""
    return Access(files=True, wake=lambda: ensure_worker(home()))
