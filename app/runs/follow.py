"""Events of a run as they are written, whichever process executes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from pleinair.app.paths import Paths
from pleinair.app.runs.events import Event, parse
from pleinair.app.runs.store import Runs
from pleinair.app.runs.tables import QUEUED, RUNNING

POLL = 0.05  # seconds between two looks at the log


@dataclass
class Follower:
    """Reader of a run's log from an event on.

    Args:
        runs: the table.
        places: of the home.
        run_id: of the run, which need not have begun.
        after: number of the last event that is not wanted; -1: all are.
    """

    runs: Runs
    places: Paths
    run_id: str
    after: int = -1
    _read: int = 0  # bytes of the file, or rows, that have been read

    def look(self) -> tuple[list[Event], bool]:
        """Return the new events, and whether there will be no more until somebody acts.

        That is so at the end of the run, and while it waits for an approval. Damaged lines are passed over.
        Raises `NotFound` for a run that has been deleted.
        """
        is_final = self.runs.get(self.run_id).status not in (QUEUED, RUNNING)  # before the log: it loses none
        return self._new(), is_final

    def _new(self) -> list[Event]:
        log = self.places.events(self.run_id)
        if not isinstance(log, Path):
            events = parse(log.read_bytes(self._read - 1)).events
            self._read = max((event.seq + 1 for event in events), default=self._read)
            return self._wanted(events)
        try:
            with log.open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except FileNotFoundError:  # it has not begun, or is being deleted
            return []
        complete = text[: text.rfind(b"\n") + 1]
        self._read += len(complete)
        return self._wanted(parse(complete).events)

    def _wanted(self, read: list[Event]) -> list[Event]:
        events = [event for event in read if event.seq > self.after]
        self.after = max((event.seq for event in events), default=self.after)
        return events


def follow(
    runs: Runs, places: Paths, run_id: str, *, after: int = -1, seconds: float | None = None
) -> Iterator[Event]:
    """Yield the events of a run until it ends, waits for an approval, or `seconds` are over."""
    follower, end = Follower(runs, places, run_id, after), _end(seconds)
    with runs:
        while True:
            events, is_final = follower.look()
            yield from events
            if is_final or time.monotonic() >= end:
                return
            time.sleep(POLL)


async def afollow(
    runs: Runs, places: Paths, run_id: str, *, after: int = -1, seconds: float | None = None
) -> AsyncIterator[Event]:
    """Yield the events of a run as `follow` does, without blocking the event loop."""
    follower, end = Follower(runs, places, run_id, after), _end(seconds)
    while True:
        events, is_final = await asyncio.to_thread(follower.look)
        for event in events:
            yield event
        if is_final or time.monotonic() >= end:
            return
        await asyncio.sleep(POLL)


def _end(seconds: float | None) -> float:
    return float("inf") if seconds is None else time.monotonic() + seconds
