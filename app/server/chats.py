"""Chat threads as they happen, for pages: rendered once for each version, whoever looks on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import Any

from sse_starlette import ServerSentEvent

from pleinair.app.chat.thread import Thread
from pleinair.app.chat.threads import Threads
from pleinair.app.runs.tables import OPEN
from pleinair.app.server.feed import key_of
from pleinair.app.server.messages import LATEST, message_views, status_of
from pleinair.app.server.site import Site
from pleinair.app.server.watch import Version, Watcher
from pleinair.app.trace.trace import SIGNS
from pleinair.tools.types import BadInput

REOPENED = "failed"  # the only ending after which a run may go on
MOST = 10_000  # ended runs that are remembered
SHARED: dict[str, Any] = {"signs": SIGNS}  # what the templates of messages need


class Chats:
    """Threads that pages show; what there is to show of a run that has ended is read once."""

    def __init__(self, site: Site) -> None:
        self._site, self._threads = site, Threads(site.places)
        self._ended: dict[str, Version] = {}
        self.watcher = Watcher(self.versions, self.rendered)

    def versions(self, thread_ids: Collection[str]) -> dict[str, Version]:
        """Return for each thread a value that changes whenever there is something new to show of it."""
        return {thread_id: self._version(thread_id) for thread_id in thread_ids}

    def _version(self, thread_id: str) -> Version:
        try:
            thread = self._threads.get(thread_id)
        except BadInput:  # it was deleted
            return None
        runs = _latest_runs(thread)
        present = self._site.versions([run for run in runs if run not in self._ended])
        if len(self._ended) > MOST:
            self._ended.clear()
        for run, version in present.items():
            if version is not None and version[0] not in (*OPEN, REOPENED):
                self._ended[run] = version
        return _version_of(thread, present | self._ended)

    def rendered(self, thread_id: str) -> str:
        """Return what is live of a thread: messages, status, title, undo and redo."""
        thread = self._threads.get(thread_id)
        messages = message_views(self._site, thread)
        values = {"thread": thread, "title": title_of(thread), "messages": messages}
        values |= {"address": f"/threads/{thread_id}", "status": status_of(messages)}
        return self._site.render("chat_live.html", **values, **SHARED)

    async def messages(self, thread_id: str, last: str) -> AsyncGenerator[ServerSentEvent]:
        """Yield what there is to show of a thread, but nothing that the client has (`last`)."""
        shared = self.watcher.shared(thread_id)
        async with aclosing(self.watcher.changes([thread_id])) as all_changes:
            async for versions in all_changes:
                if versions[thread_id] is None:
                    return
                if key_of(versions) != last:
                    version, text = await shared.newest()
                    last = key_of({thread_id: version})
                    yield ServerSentEvent(text, id=last)


def title_of(thread: Thread) -> str:
    """Return the title of a thread's page."""
    return thread.title or "New chat"


def _latest_runs(thread: Thread) -> list[str]:
    """Return the runs of the messages that are kept up to date."""
    return [run for message in thread.turns[-LATEST:] for run in message.runs]


def _version_of(thread: Thread, runs: dict[str, Version]) -> Version:
    """Return the version of a thread, by those of its runs."""
    turns = [(message.prompt, message.current, message.runs) for message in thread.turns[-LATEST:]]
    return (
        len(thread.turns),
        thread.title,
        bool(thread.undone),
        *turns,
        *(runs.get(run) for run in _latest_runs(thread)),
    )


def version_key(site: Site, thread: Thread) -> str:
    """Return the id of a message of the feed about a thread as it is at the moment."""
    return key_of({thread.id: _version_of(thread, site.versions(_latest_runs(thread)))})
