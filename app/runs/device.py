"""Devices for one generator at a time, among all processes of this machine that share a home.

Each run that waits has a numbered ticket at a device, a file that its process locks; the lowest live ticket
has the device. A run that may use several devices asks at the one with the fewest tickets, every second at
one more, and takes the first that is free. The system unlocks the files of a process that dies. After a run
its process keeps ticket and model for the next one, until another process wants the device. Not covered:
programs other than this one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from pleinair.app.engines import devices_of, has_process
from pleinair.app.settings import Settings
from pleinair.tools.worker.devices import lock_name

LOCAL = ("in_context", "ip_adapter", "controlnet", "text_only")  # backends that load a model on this machine
POLL = 0.25  # seconds between two looks at the tickets
PATIENCE = 1.0  # seconds until a run that waits asks for one more of its devices


def needed_devices(settings: Settings) -> tuple[str, ...]:
    """Return the devices of which a generator needs one, () for one on a server or in this process."""
    generator = settings.generator
    if generator.backend not in LOCAL or not has_process(settings) or settings.ray_serve.generator:
        return ()
    return devices_of(settings) or (str(generator.arguments.get("device") or "auto"),)


@contextmanager
def device_held(
    folder: Path,
    devices: Sequence[str],
    wait: Callable[[int], None],
    unload: Callable[[str], None] = lambda device: None,
) -> Iterator[str]:
    """Acquire one of some devices for the block, after those that asked for it before; yield its name.

    Args:
        folder: of the tickets, the same for all processes.
        devices: torch devices, or "auto".
        wait: called several times a second with the number of holders ahead; may raise.
        unload: frees a device's memory; called after the block, once another process waits for the device.
    """
    places = {folder / lock_name(device).replace(":", "-"): device for device in devices}
    tickets = dict[Path, FileLock]()
    try:
        place = _first_free(list(places), tickets, wait)
        yield places[place]
    finally:
        for place, ticket in tickets.items():
            device = places[place]
            _keep(place, ticket, partial(unload, device))


def _first_free(places: list[Path], tickets: dict[Path, FileLock], wait: Callable[[int], None]) -> Path:
    """Return the first place that is free, with its ticket as the only one in `tickets`."""
    started, by_load = time.monotonic(), list[Path]()
    while True:
        for place in places:  # also while this waits: another run of this process may have ended
            if place not in tickets and (ticket := _kept_ticket(place)):
                tickets[place] = ticket
        by_load = by_load or sorted(places, key=lambda place: len(_tickets(place)))
        if not tickets or time.monotonic() > started + PATIENCE * len(tickets):
            unasked = [place for place in by_load if place not in tickets]
            tickets.update({place: _take_ticket(place) for place in unasked[:1]})
        ahead = {place: _ahead(place, Path(ticket.lock_file)) for place, ticket in tickets.items()}
        free = next((place for place in tickets if not ahead[place]), None)
        if free:
            for place in [place for place in tickets if place != free]:
                _release(tickets.pop(place))
            return free
        wait(min(ahead.values()))
        time.sleep(POLL)


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
