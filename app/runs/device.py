"""A device for one generator at a time, among all processes of this machine that share a home.

Each process that waits has a numbered ticket, a file that it locks; the lowest live ticket has the device.
The system unlocks the file of a process that dies. Not covered: programs other than this one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pleinair.app.settings import Settings

LOCAL = ("in_context", "ip_adapter", "controlnet", "text_only")  # backends that load a model on this machine
POLL = 0.25  # seconds between two looks at the tickets


def device_of(settings: Settings) -> str:
    """Return the device that a generator needs for itself, "" for one on a server or in this process."""
    generator = settings.generator
    if generator.backend not in LOCAL or not settings.worker.process:
        return ""
    return str(generator.arguments.get("device") or "auto")


@contextmanager
def device_held(folder: Path, device: str, wait: Callable[[int], None]) -> Iterator[None]:
    """Hold a device for the block, after those that asked for it before.

    Args:
        folder: of the tickets, the same for all processes.
        device: a torch device, or "auto".
        wait: called several times a second with the number of holders ahead; may raise.
    """
    place = folder / device.replace(":", "-")
    ticket = _take_ticket(place)
    try:
        while ahead := _ahead(place, Path(ticket.lock_file)):
            wait(ahead)
            time.sleep(POLL)
        yield
    finally:
        ticket.release()
        Path(ticket.lock_file).unlink(missing_ok=True)


def _take_ticket(place: Path) -> FileLock:
    """Create and lock the file of the next number."""
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / "lock"):
        tickets = _live_tickets(place)
        number = int(tickets[-1].stem) + 1 if tickets else 1
        ticket = FileLock(place / f"{number:09}.ticket")
        ticket.acquire()
    return ticket


def _ahead(place: Path, ticket: Path) -> int:
    """Return the number of live tickets before one."""
    with FileLock(place / "lock"):
        return sum(path < ticket for path in _live_tickets(place))


def _live_tickets(place: Path) -> list[Path]:
    """Return the tickets that are locked, lowest first, and remove the others."""
    return [path for path in sorted(place.glob("*.ticket")) if _is_live(path)]


def _is_live(path: Path) -> bool:
    """Return whether another holder has a ticket's file locked; remove the file otherwise."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    path.unlink(missing_ok=True)
    lock.release()
    return False
