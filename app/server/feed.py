"""Runs as they happen, for pages: rendered once for each version, whoever looks on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing
from hashlib import sha256

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from pleinair.app.runs.tables import OPEN
from pleinair.app.server.site import Site, site_of
from pleinair.app.server.watch import Versions

PING = 15  # seconds between two signs of life on a quiet stream
SLOW = 60  # seconds that a reader may take for one message
GRACE = 2  # seconds that a stream has to end by itself, when the server stops
LAST_ID = "last-event-id"  # header with which a browser connects again
router = APIRouter()


def changes(site: Site, run_ids: Collection[str]) -> AsyncGenerator[Versions]:
    """Return an endless iterator of the versions of runs: the present ones, then whenever one changes.

    A version begins with the run's status, and is None where the run has been deleted. A reader that is slow
    gets the newest versions only.
    """
    return site.watcher.changes(run_ids)


def are_final(versions: Versions) -> bool:
    """Return whether none of the runs will change any more."""
    return all(version is None or version[0] not in OPEN for version in versions.values())


def key_of(versions: Versions) -> str:
    """Return the id of a message about these versions, by which a client says that it has it."""
    return sha256(repr(sorted(versions.items())).encode()).hexdigest()[:16]


def streamed(messages: AsyncIterator[ServerSentEvent]) -> Response:
    """Return a response that sends messages until they end, the client leaves or the server stops."""
    return EventSourceResponse(messages, ping=PING, send_timeout=SLOW, shutdown_grace_period=GRACE)


@router.get("/runs/{run_id}/feed")
async def run_feed(request: Request, run_id: str, after: str = "") -> Response:
    """Send a run whenever there is something new to show: not what the client has, by its last id."""
    site = site_of(request)
    await run_in_threadpool(site.runs.get, run_id)
    return streamed(messages(site, run_id, request.headers.get(LAST_ID, after)))


async def messages(site: Site, run_id: str, last: str) -> AsyncGenerator[ServerSentEvent]:
    """Yield the messages of a run's feed, but none that the client has (`last`), to its end."""
    shared = site.watcher.shared(run_id)
    async with aclosing(site.watcher.changes([run_id])) as all_changes:
        async for versions in all_changes:
            if key_of(versions) != last:
                version, text = await shared.newest()
                versions = {run_id: version}
                last = key_of(versions)
                yield ServerSentEvent(text, id=last)
            if are_final(versions):
                yield ServerSentEvent("", event="ended")
                return
