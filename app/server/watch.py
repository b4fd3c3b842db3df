"""Look at the runs that pages show, once for all viewers, and only while there are some."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

POLL = 0.05  # seconds between two looks, where no worker tells of an event
GAP = 0.02  # seconds from a look that found a change to the next one
Version = tuple[Any, ...] | None  # of what there is to show of a run; None: the run has been deleted
Versions = Mapping[str, Version]
log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Viewer:
    runs: frozenset[str]
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Watcher:
    """Versions of the runs that somebody views; for one event loop.

    Args:
        look: returns the versions of runs; called in a thread, like `render`.
        render: returns the part of a page that shows a run.
    """

    def __init__(self, look: Callable[[Collection[str]], Versions], render: Callable[[str], str]) -> None:
        self._look, self._render = look, render
        self._shared: WeakValueDictionary[str, Shared] = WeakValueDictionary()
        self._viewers: set[_Viewer] = set()
        self._versions: dict[str, Version] = {}
        self._tell = asyncio.Event()
        self._closed = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = CapacityLimiter(2)  # that requests cannot occupy

    async def changes(self, run_ids: Collection[str]) -> AsyncGenerator[Versions]:
        """Yield the versions of runs, at once and when one changes; a slow reader gets only the newest."""
        viewer, last = _Viewer(frozenset(run_ids)), None
        self._add(viewer)
        try:
            while True:
                await viewer.changed.wait()
                viewer.changed.clear()
                if self._closed.is_set():
                    return
                versions = {run: self._versions[run] for run in viewer.runs if run in self._versions}
                if versions != last and len(versions) == len(viewer.runs):
                    yield versions
                    last = versions
        finally:
            self._remove(viewer)

    def shared(self, run_id: str) -> Shared:
        """Return the part of the page of a run that is viewed; the same for all who hold it."""
        return self._shared.setdefault(run_id, Shared(self, run_id))

    async def render(self, run_id: str) -> str:
        """Return what there is to show of a run."""
        return await run_sync(self._render, run_id, limiter=self._threads)

    def version(self, run_id: str) -> Version:
        """Return the newest version of a run that is viewed."""
        return self._versions.get(run_id)

    def tell(self) -> None:
        """Look now, as there is something new; from any thread."""
        if self._loop:
            with suppress(RuntimeError):  # it has been closed
                self._loop.call_soon_threadsafe(self._tell.set)

    @property
    def is_closed(self) -> bool:
        """Return whether the server stops."""
        return self._closed.is_set()

    def close(self) -> None:
        """End all iterators, as the server stops; from any thread."""
        self._closed.set()
        self.tell()

    def _add(self, viewer: _Viewer) -> None:
        self._viewers.add(viewer)
        if self._versions.keys() >= viewer.runs:
            viewer.changed.set()
        if self._task is None:
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._watch(), name="watcher of runs")
        self._tell.set()

    def _remove(self, viewer: _Viewer) -> None:
        self._viewers.discard(viewer)
        if not self._viewers:
            self._versions = {}
            if self._task:
                self._task.cancel()
            self._task = None

    async def _watch(self) -> None:
        while True:
            self._tell.clear()
            runs = frozenset[str]().union(*(viewer.runs for viewer in self._viewers))
            shown = list(self._shared.values())
            try:
                versions, texts = await run_sync(self._look_at, runs, shown, limiter=self._threads)
            except Exception:  # a full disk or a locked table may recover
                log.exception("Runs cannot be read.")
                await asyncio.sleep(1)
                continue
            is_new, before, self._versions = versions != self._versions, self._versions, versions
            for shared in shown:
                if shared.run_id in texts:
                    shared.version, shared.text = versions[shared.run_id], texts[shared.run_id]
            for viewer in self._viewers:
                if self._closed.is_set() or _differ(before, versions, viewer.runs):
                    viewer.changed.set()
            await asyncio.sleep(GAP if is_new else 0)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._tell.wait(), POLL)

    def _look_at(
        self, runs: Collection[str], shown: Collection[Shared]
    ) -> tuple[dict[str, Version], dict[str, str]]:
        """Return the versions, and what those show that are new to a page."""
        versions, texts = dict(self._look(runs)), {}
        for shared in shown:
            if shared.run_id in versions and shared.version != versions[shared.run_id]:
                with suppress(Exception):  # raised again for the viewers of this one run
                    texts[shared.run_id] = self._render(shared.run_id)
        return versions, texts


def _differ(before: Versions, now: Versions, runs: Collection[str]) -> bool:
    """Return whether all of the runs are known now, and one has changed."""
    return all(run in now for run in runs) and any(
        run not in before or before[run] != now[run] for run in runs
    )


class Shared:
    """Part of a page that shows a run, for all its viewers: a version, and what it shows."""

    def __init__(self, watcher: Watcher, run_id: str) -> None:
        self._watcher, self.run_id = watcher, run_id
        self._lock = asyncio.Lock()
        self.version: Version = ()
        self.text = ""

    async def newest(self) -> tuple[Version, str]:
        """Return the newest version and what it shows, which the first viewer may have to wait for."""
        async with self._lock:
            version = self._watcher.version(self.run_id)
            if self.version != version:
                self.text = await self._watcher.render(self.run_id)
                self.version = version
            return self.version, self.text
