"""Answers to requests for images: the images of runs that have ended, and the events of a stream."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Literal

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from sse_starlette import ServerSentEvent

from pleinair.app.runs.events import Ended, Progress, payloads, read_readable
from pleinair.app.runs.follow import Follower
from pleinair.app.runs.request import read_request
from pleinair.app.runs.results import png_of
from pleinair.app.runs.row import Run
from pleinair.app.runs.tables import OPEN
from pleinair.app.runs.worker import PREVIEW
from pleinair.app.server.feed import are_final
from pleinair.app.server.site import Site
from pleinair.app.server.v1.errors import ApiFault
from pleinair.app.server.v1.schemas import (
    BEST,
    CompletedImage,
    Format,
    ImageData,
    ImageRequest,
    ImagesAnswer,
    ImageUsage,
    PartialImage,
)
from pleinair.app.trace.view import RunView, view_of
from pleinair.tools.storage.artifacts import ArtifactStore, BadArtifact
from pleinair.tools.types import NotFound, PleinairError

Kind = Literal["image_generation", "image_edit"]


@dataclass(frozen=True)
class Answer:
    """Answer to a request whose runs are queued.

    Args:
        site: of the server.
        fields: of the request.
        runs: one an image.
        kind: of the events in a stream.
        address_of: returns the address of a path of this server, as the client has it.
        has_key: whether the client can send the request again and get the same runs.
    """

    site: Site
    fields: ImageRequest
    runs: Sequence[Run]
    kind: Kind
    address_of: Callable[[str], str]
    has_key: bool

    @property
    def ids(self) -> list[str]:
        """The ids of the runs."""
        return [run.id for run in self.runs]

    @property
    def quality(self) -> Literal["low", "high"]:
        """What the quality of the request comes to."""
        return "low" if self.fields.is_draft else "high"

    async def has_ended(self, request: Request) -> bool:
        """Wait until all runs have ended, and return True, or False if the client has left.

        Raises `ApiFault` when the server stops.
        """
        async with aclosing(self.site.watcher.changes(self.ids)) as changes:
            async for versions in changes:
                if are_final(versions):
                    return True
                if await request.is_disconnected():
                    return False
        raise self._stopping()

    def images(self) -> ImagesAnswer:
        """Return the images of runs that have ended; reads files.

        Raises `ApiFault` where no run has one, and `NotFound` for a run that has been deleted.
        """
        runs = [self.site.runs.get(run_id) for run_id in self.ids]
        views = [view_of(run, self.site.places) for run in runs]
        images = [(view, data) for view in views if (data := image_of(self.site, view))]
        if not images:
            raise without_image(views[0])
        shown = {view.run for view, _ in images}
        return ImagesAnswer(
            created=int(max(run.updated for run in runs)),
            data=[self._data(view, data) for view, data in images],
            output_format=self.fields.output_format,
            quality=self.quality,
            size=_size(images[0][0]),
            usage=ImageUsage.of(sum(view.usage.tokens for view in views)),
            pleinair=[view for view in views if view.run not in shown],
        )

    def _data(self, view: RunView, png: bytes) -> ImageData:
        attempt = view.best_attempt
        assert attempt
        image = {"url": self._url(view)} if self.fields.is_by_url else {"b64_json": self._encoded(png)}
        return ImageData(revised_prompt=attempt.prompt, pleinair=view, **image)

    def _url(self, view: RunView) -> str:
        url = self.address_of(f"/v1/images/{view.run}.{self.fields.output_format}")
        if self.fields.output_compression == BEST:
            return url
        return f"{url}{'&' if '?' in url else '?'}compression={self.fields.output_compression}"

    def _encoded(self, png: bytes) -> str:
        data = converted(png, self.fields.output_format, self.fields.output_compression)
        return base64.b64encode(data).decode()

    async def events(self) -> AsyncGenerator[ServerSentEvent]:
        """Yield previews and images as the runs have them, then an error for a run without an image."""
        pending = {run_id: Previews(self.site, run_id, self.fields.partial_images) for run_id in self.ids}
        faults: list[ApiFault] = []
        async with aclosing(self.site.watcher.changes(self.ids)) as changes:
            async for versions in changes:
                for run_id, previews in list(pending.items()):
                    version = versions[run_id]
                    is_open = version is not None and version[0] in OPEN
                    if not is_open:
                        del pending[run_id]
                    event = await run_in_threadpool(self._event, run_id, previews, is_open, faults)
                    if event:
                        yield event
                if not pending:
                    break
        if pending:
            faults.append(self._stopping())
        if faults:  # clients read no further than the first one
            yield ServerSentEvent(faults[0].answer.model_dump_json(), event="error")

    def _event(
        self, run_id: str, previews: Previews, is_open: bool, faults: list[ApiFault]
    ) -> ServerSentEvent | None:
        """Return the next event of a run; where it has ended without an image, add that to `faults`."""
        try:
            event = self._partial(previews) if is_open else self._completed(run_id)
        except ApiFault as fault:
            faults.append(fault)
            return None
        return ServerSentEvent(event.model_dump_json(), event=event.type) if event else None

    def _partial(self, previews: Previews) -> PartialImage | None:
        preview = previews.newest()
        if preview is None:
            return None
        return PartialImage(
            type=f"{self.kind}.partial_image",
            b64_json=self._encoded(preview),
            created_at=int(time.time()),
            output_format=self.fields.output_format,
            quality=self.quality,
            size=self.fields.size,
            partial_image_index=previews.count - 1,
        )

    def _completed(self, run_id: str) -> CompletedImage:
        """Return the event of a run that has ended; raises `ApiFault` where it has no image."""
        try:
            run = self.site.runs.get(run_id)
            view = view_of(run, self.site.places)
        except PleinairError as error:
            raise ApiFault(error.message, "not_found", status=404, remedy=error.remedy) from error
        attempt, data = view.best_attempt, image_of(self.site, view)
        if not (attempt and data):
            raise without_image(view)
        return CompletedImage(
            type=f"{self.kind}.completed",
            b64_json=self._encoded(data),
            created_at=int(run.updated),
            output_format=self.fields.output_format,
            quality=self.quality,
            size=_size(view),
            usage=ImageUsage.of(view.usage.tokens),
            revised_prompt=attempt.prompt,
            pleinair=view,
        )

    def _stopping(self) -> ApiFault:
        return ApiFault(
            f"the server stops; run {self.ids[0]} goes on when it starts again",
            "server_stopping",
            status=503,
            remedy="" if self.has_key else "An Idempotency-Key would lead to the same run.",
            retry=self.has_key,
        )


def image_of(site: Site, view: RunView) -> bytes | None:
    """Return the best image of a run that has ended as the PNG that is delivered, None if it has none."""
    store = ArtifactStore(site.places.pictures(view.run))
    ends = payloads(read_readable(site.places.events(view.run)).events, Ended)
    if not (ends and (best := ends[-1].outcome.best)):
        return None
    request = read_request(site.runs.get(view.run).request_json)
    with suppress(BadArtifact):
        return png_of(best, request, ends[-1], store)
    return None


def without_image(view: RunView) -> ApiFault:
    """Return the error of a run that has ended without an image; `code` is its ending."""
    reason = view.reason or "no reason is known"
    message = f"run {view.run} has {view.status} without an image: {reason}"
    status = 500 if view.status == "failed" else 400
    return ApiFault(message, view.status, status=status, retry=False)


def converted(png: bytes, kind: Format, quality: int) -> bytes:
    """Return a PNG as a file of a format, with its XMP; `quality` is 0 to 100, for webp and jpeg."""
    if kind == "png":
        return png
    file = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        metadata = {"xmp": image.info["xmp"]} if "xmp" in image.info else {}
        image.convert("RGB").save(file, kind, quality=quality, **metadata)
    return file.getvalue()


def _size(view: RunView) -> str:
    image = view.best_attempt.image if view.best_attempt else None
    return f"{image.width}x{image.height}" if image else ""


@dataclass
class Previews:
    """Previews of a run, of which `most` are wanted: spread over the diffusion steps of its first image."""

    site: Site
    run_id: str
    most: int
    count: int = 0  # that were returned
    _share: float = 0.0  # of the steps that are done
    _stamp: object = None
    _follower: Follower = field(init=False)

    def __post_init__(self) -> None:
        self._follower = Follower(self.site.runs, self.site.places, self.run_id)

    def newest(self) -> bytes | None:
        """Return the newest preview as a PNG, None where none is due."""
        if self.count >= self.most:
            return None
        files = self.site.places.files(self.run_id)
        with suppress(NotFound):
            for step in payloads(self._follower.look()[0], Progress):
                self._share = max(self._share, (step.done or 0) / (step.total or 1))
        stamp = self.site.preview_stamp(self.run_id)
        if self._share < (self.count + 1) / (self.most + 1) or stamp == self._stamp:
            return None
        data = files.read(PREVIEW)
        if data is not None:  # else the run has just ended
            self.count, self._stamp = self.count + 1, stamp
        return data
