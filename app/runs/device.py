"""A device for one generator at a time, among all processes of this machine that share a home.

Each process that waits has a numbered ticket, a file that it locks; the lowest live ticket has the device.
The system unlocks the file of a process that dies. After a run its process keeps ticket and model for the
next one, until another process wants the device. Not covered: programs other than this one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
def device_held(
    folder: Path, device: str, wait: Callable[[int], None], unload: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold a device for the block, after those that asked for it before.

    Args:
        folder: of the tickets, the same for all processes.
        device: a torch device, or "auto".
        wait: called several times a second with the number of holders ahead; may raise.
        unload: frees the device's memory; called after the block, once another process waits for the device.
    """
    place = folder / device.replace(":", "-")
    ticket = _kept_ticket(place) or _take_ticket(place)
    try:
        while ahead := _ahead(place, Path(ticket.lock_file)):
            wait(ahead)
            time.sleep(POLL)
        yield
    finally:
        _keep(place, ticket, unload)


class _Keeper(threading.Thread):
    """Thread that gives an idle device to the first other process that asks for it."""

    def __init__(self, place: Path, ticket: FileLock, unload: Callable[[], None]) -> None:
        super().__init__(daemon=True, name=f"keeper of {place.name}")
        self._place, self._unload = place, unload
        self.ticket = ticket
        self.taken = threading.Event()  # by the next run of this process

    def run(self) -> None:
        """Wait for another process, then unload."""
        with suppress(OSError):  # the folder has been deleted
            while not self.taken.wait(POLL):
                if _others(self._place):
                    with _keeping:
                        if self.taken.is_set():
                            return
                        del _keepers[self._place]
                    self.give()

    def give(self) -> None:
        """Free the device."""
        self.taken.set()
        self._unload()
        _release(self.ticket)


_keeping = threading.Lock()
_keepers: dict[Path, _Keeper] = {}  # of the devices that this process has and does not use


def _keep(place: Path, ticket: FileLock, unload: Callable[[], None]) -> None:
    """Keep a device until another process asks; for another run of this process it is released at once."""
    keeper = _Keeper(place, ticket, unload)
    own = [path for path in _tickets(place) if _process(path) == _process(Path(ticket.lock_file))]
    with _keeping:
        if len(own) == 1 and place not in _keepers and not _others(place):
            _keepers[place] = keeper
            keeper.start()
            return
    if len(own) > 1:
        _release(ticket)
    else:
        keeper.give()


def _kept_ticket(place: Path) -> FileLock | None:
    """Return the ticket of the device that this process keeps; None if others wait, who come first."""
    with _keeping:
        keeper = _keepers.pop(place, None)
        if keeper:
            keeper.taken.set()
    if keeper and _others(place):
        keeper.give()
        return None
    return keeper.ticket if keeper else None


def _release(ticket: FileLock) -> None:
    ticket.release()
    Path(ticket.lock_file).unlink(missing_ok=True)


def _process(ticket: Path) -> str:
    return ticket.stem.partition("-")[2]


def _others(place: Path) -> list[Path]:
    """Return the tickets of other processes."""
    return [path for path in _tickets(place) if _process(path) != str(os.getpid())]


def _take_ticket(place: Path) -> FileLock:
    """Create and lock the file of the next number."""
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / "lock"):
        tickets = _live_tickets(place)
        number = int(tickets[-1].stem.partition("-")[0]) + 1 if tickets else 1
        # released by another thread than this one, if it is kept
        ticket = FileLock(place / f"{number:09}-{os.getpid()}.ticket", thread_local=False)
        ticket.acquire()
    return ticket


def _ahead(place: Path, ticket: Path) -> int:
    """Return the number of live tickets before one."""
    return sum(path < ticket for path in _tickets(place))


def _tickets(place: Path) -> list[Path]:
    with FileLock(place / "lock"):
        return _live_tickets(place)


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
