"""What all routes share: the table and folders of runs, the templates, and images by address."""

from __future__ import annotations

import json
import math
import re
import shlex
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from jinja2 import Environment
from markupsafe import Markup

from pleinair.app.library.monitor import Monitor
from pleinair.app.library.opened import Libraries
from pleinair.app.library.retrievals import RetrievedCache
from pleinair.app.paths import Paths
from pleinair.app.pocket import is_pocket
from pleinair.app.runs.events import read_readable
from pleinair.app.runs.request import DrawRequest, read_request
from pleinair.app.runs.results import chosen_by
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import Runs
from pleinair.app.runs.tables import OPEN, QUEUED, RUNNING
from pleinair.app.runs.worker import PREVIEW, PREVIEWS
from pleinair.app.server.decisions import decisions_of, hit_address
from pleinair.app.server.watch import Version, Watcher
from pleinair.app.storyboard.export import attribution_of
from pleinair.app.storyboard.gallery import SMALL
from pleinair.app.storyboard.html import environment, run_values
from pleinair.app.trace.calls import inline_calls, steps_with_calls, usage_by_attempt
from pleinair.app.trace.trace import device_ahead, trace_begun
from pleinair.tools.storage.artifacts import ArtifactStore, BadArtifact, Original
from pleinair.tools.storage.files import stamp_of
from pleinair.tools.storage.folder import Stamp, StorageFault
from pleinair.tools.types import BadInput, Box, Hit, Picture

TEMPLATES = Path(__file__).with_name("templates")
MOST_OFFERED = 24  # newest runs that can be compared with
STATIC = Path(__file__).with_name("static")
PAGES = {"Chat": "/", "Runs": "/runs", "Library": "/library"}  # in the navigation
IMMUTABLE = {"cache-control": "private, max-age=31536000, immutable"}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Options:
    """How a server runs.

    Args:
        host: address to listen on; one that is not loopback needs a token.
        port: to listen on; 0 for any free one.
        token: that requests must have; "" for none.
        names: further names in the `Host` header.
        queue: runs that may wait.
        workers: processes that execute runs; 0 where `pleinair worker` runs elsewhere.
        is_judging: whether there are the pages of a study and no others.
    """

    host: str = "127.0.0.1"
    port: int = 8800
    token: str = field(default="", repr=False)
    names: tuple[str, ...] = ()
    queue: int = 64
    workers: int = 1
    is_judging: bool = False


@dataclass(frozen=True)
class LinkedImage:
    """Image of a page, by its address."""

    uri: str
    small: bool  # to be enlarged without smoothing


class LinkedGallery:
    """Images of a run by their addresses; nothing is read to make a page."""

    def __init__(self, run_id: str, request: DrawRequest) -> None:
        self.pocket, self.leak = is_pocket(request.settings), request.settings.leak
        self.chosen = chosen_by(request)
        self._run_id = run_id

    def stored(self, picture: Picture, crop: Box | None = None) -> LinkedImage:
        """Return the address of an image of the run, or of a crop of it."""
        query = f"?crop={','.join(f'{side:.4f}' for side in crop)}" if crop else ""
        is_small = max(picture.width, picture.height) <= SMALL
        return LinkedImage(f"/runs/{self._run_id}/images/{picture.sha256}.png{query}", is_small)

    def thumbnail(self, hit: Hit) -> LinkedImage:
        """Return the address of a thumbnail of a library image."""
        return LinkedImage(hit_address(self._run_id, hit), small=False)


@dataclass(frozen=True)
class Row:
    """Run in a list."""

    id: str
    prompt: str
    status: str
    created: datetime
    thread: bool  # whether it is of a chat
    image: str  # address of the best image so far, "" without one
    thumbnail: str  # its address reduced


@dataclass(frozen=True)
class Site:
    """Server's state; everything that lasts is on disk."""

    options: Options
    places: Paths

    @cached_property
    def runs(self) -> Runs:
        """Return the run table."""
        return Runs(self.places.table)

    @cached_property
    def libraries(self) -> Libraries:
        """Return the library that pages show, in memory."""
        return Libraries(self.places)

    @cached_property
    def monitor(self) -> Monitor:
        """Return the monitor of the library, which runs as long as the server does."""
        return Monitor(self.places)

    @cached_property
    def retrieved(self) -> RetrievedCache:
        """Return what the runs retrieved."""
        return RetrievedCache(self.runs, self.places)

    @cached_property
    def templates(self) -> Environment:
        """Return the environment of all templates."""
        templates = environment(TEMPLATES)
        templates.filters["quoted"] = shlex.quote
        templates.globals["monitor"] = self.monitor
        templates.globals["has_token"] = bool(self.options.token)
        templates.globals["navigation"] = {} if self.options.is_judging else PAGES
        return templates

    def render(self, template: str, **values: Any) -> str:
        """Return a page."""
        return self.templates.get_template(template).render(**values)

    @cached_property
    def watcher(self) -> Watcher:
        """Return the watcher of the runs that pages show."""
        return Watcher(self.versions, self.rendered)

    def versions(self, run_ids: Collection[str]) -> dict[str, Version]:
        """Return for each run a value that changes whenever there is something new to show of it.

        It begins with the status; None where there is no such run.
        """
        runs = self.runs.get_some(run_ids)
        is_queued = any(run.status == QUEUED for run in runs.values())
        queue = [run.id for run in self.runs.queue()] if is_queued else []
        return {run_id: self._version(runs.get(run_id), queue) for run_id in run_ids}

    def _version(self, run: Run | None, queue: Sequence[str]) -> Version:
        if run is None:
            return None
        log = self.places.events(run.id)
        stamps = [stamp_of(log) if isinstance(log, Path) else log.stamp()]
        stamps += [self.preview_stamp(run.id)] if run.status == RUNNING else []
        ahead = queue.index(run.id) if run.id in queue else None
        updated = run.updated if run.status != RUNNING else 0.0  # which renewals of the lease change too
        return run.status, updated, run.cancel_requested, ahead, *stamps

    def preview_stamp(self, run_id: str) -> Stamp | None:
        """Return the stamp of the newest preview of a run that is executed now, None for none.

        Object storage, where each look is a request, is asked once in `PREVIEWS` seconds at most.
        """
        files = self.places.files(run_id)
        if files.local:
            return files.stamp(PREVIEW)
        asked, stamp = self._preview_stamps.get(run_id, (-math.inf, None))
        if time.monotonic() - asked >= PREVIEWS:
            with suppress(StorageFault):  # a preview is no reason to fail a page
                stamp = files.stamp(PREVIEW)
            self._preview_stamps[run_id] = time.monotonic(), stamp
        return stamp

    @cached_property
    def _preview_stamps(self) -> dict[str, tuple[float, Stamp | None]]:
        """Return by run when object storage was asked last, and its answer."""
        return {}

    def rendered(self, run_id: str) -> str:
        """Return the part of a page that shows a run, or that it has been deleted."""
        run = self.runs.get_some([run_id]).get(run_id)
        if run is None:
            return self.render("deleted.html")
        values = {"decisions": decisions_of(run, self.places), "back": f"/runs/{run_id}"}
        values |= {"run": run, "has_ended": run.status not in OPEN}
        values |= self.choices_of(run) if run.status not in OPEN else {}
        changes = self.render("changes.html", **values)
        return str(self.render_run(run)) + changes

    def render_run(self, run: Run) -> Markup:
        """Return the part of a page that shows a run, also one that has not begun."""
        try:
            trace = trace_begun(run, self.places)
        except BadInput:
            facts = {"run": run, "ahead": self.ahead(run), "request": read_request(run.request_json)}
            device = device_ahead(read_readable(self.places.events(run.id)).events)
            return Markup(self.render("not_begun.html", device=device, **facts))
        gallery = LinkedGallery(run.id, read_request(run.request_json))
        preview = self.preview_stamp(run.id) if run.status == RUNNING else None
        steps = steps_with_calls(run, self.places)
        values = run_values(trace, gallery, usage_by_attempt(steps), attribution_of(run, self.places))
        values |= {"steps": steps, "inline": inline_calls(steps), "parent": trace.run.parent}
        return Markup(self.render("run_part.html", run=run, preview=preview, **values))

    def choices_of(self, run: Run) -> dict[str, Any]:
        """Return what the forms of a run's page offer: its attempts, its parent, the newest other runs."""
        try:
            trace = trace_begun(run, self.places)
        except BadInput:
            return {"attempts": [], "originals": [], "origin": None, "others": []}
        parent, store = trace.run.parent, ArtifactStore(self.places.pictures(run.id))
        newest = [self.row(other) for other in self.runs.newest(MOST_OFFERED) if other.id != run.id]
        origins = self.runs.get_some([parent.run]) if parent else {}
        return {
            "attempts": trace.attempt_traces,
            "originals": [each for each in trace.attempt_traces if store.original(each.attempt.picture)],
            "origin": self.row(origins[parent.run]) if parent and parent.run in origins else None,
            "others": [row for row in newest if row.image and not (parent and row.id == parent.run)],
        }

    def row(self, run: Run) -> Row:
        """Return a run for a list; of a damaged one little is known."""
        request = json.loads(run.request_json) if run.request_json else {}
        best = run.outcome.best if run.outcome else None
        return Row(
            id=run.id,
            prompt=str(request.get("prompt", "")),
            status=run.status,
            created=datetime.fromtimestamp(run.created).astimezone(),
            thread=bool(request.get("thread")),
            image=f"/runs/{run.id}/images/{best.picture.sha256}.png" if best else "",
            thumbnail=f"/runs/{run.id}/thumbnails/{best.picture.sha256}.webp" if best else "",
        )

    def ahead(self, run: Run) -> int | None:
        """Return the number of runs that a worker takes before a queued one; None for any other."""
        ids = [queued.id for queued in self.runs.queue()]
        return ids.index(run.id) if run.id in ids else None


def site_of(request: Request) -> Site:
    """Return the server's state."""
    site: Site = request.app.state.site
    return site


def stored_png(store: ArtifactStore, name: str) -> bytes | None:
    """Return the image of a SHA-256, None for another name, or if it is missing or has changed."""
    if not _SHA256.fullmatch(name):
        return None
    try:
        return store.read(Picture(sha256=name, width=1, height=1))
    except BadArtifact:
        return None


def stored_original(store: ArtifactStore, name: str) -> Original | None:
    """Return the signed file in which the image of a SHA-256 was received, None where there is none."""
    return store.original(Picture(sha256=name, width=1, height=1)) if _SHA256.fullmatch(name) else None


def png(data: bytes | None) -> Response:
    """Return a response of an image that never changes; 404 for None."""
    if data is None:
        return Response(status_code=404)
    kind = "image/jpeg" if data.startswith(b"\xff\xd8\xff") else "image/png"
    return Response(data, media_type=kind, headers=IMMUTABLE)
