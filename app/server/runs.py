"""Pages of runs: one run as it happens, its images and exports."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from pleinair.app.library.thumbnails import thumbnail
from pleinair.app.runs.calls import call_image
from pleinair.app.runs.request import read_request
from pleinair.app.runs.tables import OPEN
from pleinair.app.runs.worker import PREVIEW
from pleinair.app.server.decisions import decisions_of
from pleinair.app.server.feed import key_of
from pleinair.app.server.site import IMMUTABLE, png, site_of, stored_original, stored_png
from pleinair.app.trace.view import RunView, view_of
from pleinair.tools.images.crops import cut
from pleinair.tools.images.reading import read_picture
from pleinair.tools.images.signed import SUFFIXES
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import PleinairError

router = APIRouter()
PAGE: dict[int | str, dict[str, Any]] = {200: {"model": RunView, "content": {"text/html": {}}}}
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}
SIGNED: dict[int | str, dict[str, Any]] = {200: {"content": {kind: {} for kind in SUFFIXES.values()}}}
WEBP: dict[int | str, dict[str, Any]] = {200: {"content": {"image/webp": {}}}}


@router.get("/runs/{run_id}", responses=PAGE)
def run_page(request: Request, run_id: str) -> Response:
    """Show a run; a program that accepts JSON gets it as `RunView`."""
    site = site_of(request)
    run = site.runs.get(run_id)
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse(view_of(run, site.places).model_dump(mode="json"))
    seen = key_of(site.versions([run_id]))  # before it is rendered, so that nothing is missed
    is_open, part, decisions = run.status in OPEN, site.render_run(run), decisions_of(run, site.places)
    values = {"run": run, "part": part, "seen": seen, "is_open": is_open, "decisions": decisions}
    values |= site.choices_of(run)
    return HTMLResponse(site.render("run_page.html", **values))


@router.get("/runs/{run_id}/images/{name}.png", response_class=Response, responses=PNG)
def image(request: Request, run_id: str, name: str, crop: str = "") -> Response:
    """Send an image of a run by its SHA-256, or a crop of it."""
    site = site_of(request)
    site.runs.get(run_id)
    data = stored_png(ArtifactStore(site.places.pictures(run_id)), name)
    if data is None or not crop:
        # which is not decoded here: a reply can have any image
        return png(data or call_image(site.places.files(run_id), name))
    file = io.BytesIO()
    try:
        x0, y0, x1, y1 = map(float, crop.split(","))
        cut(read_picture(data), (x0, y0, x1, y1)).save(file, "PNG")
    except (ValueError, OverflowError):
        return png(None)
    return png(file.getvalue())


@router.get("/runs/{run_id}/originals/{name}", response_class=Response, responses=SIGNED)
def original(request: Request, run_id: str, name: str) -> Response:
    """Send the file in which a server sent and signed an image, unchanged, by the SHA-256 of the image."""
    site = site_of(request)
    run = site.runs.get(run_id)
    signed = stored_original(ArtifactStore(site.places.pictures(run.id)), name)
    if signed is None:
        return Response(status_code=404)
    file = f"{run.id}-{read_request(run.request_json).slug}-original{signed.suffix}"
    headers = {"content-disposition": f'attachment; filename="{file}"'} | IMMUTABLE
    return Response(signed.data, media_type=SUFFIXES[signed.suffix], headers=headers)


@router.get("/runs/{run_id}/hits/{name}.webp", response_class=Response, responses=WEBP)
def hit(request: Request, run_id: str, name: str) -> Response:
    """Send a small copy of an image of the library that a run retrieved from."""
    site, data = site_of(request), None
    settings = read_request(site.runs.get(run_id).request_json).settings
    with suppress(PleinairError):  # a library that has been moved
        images = site.libraries.of(settings).images
        if item := images.by_hit(name):
            data = thumbnail(images, images.key(item), "small", site.places)
    if data is None:
        return Response(status_code=404)
    return Response(data, media_type="image/webp", headers={"cache-control": "private, max-age=3600"})


@router.get(
    "/runs/{run_id}/preview.png",
    response_class=Response,
    responses={**PNG, 204: {"description": "There is none now"}},
)
def preview(request: Request, run_id: str) -> Response:
    """Send the newest preview of the image in progress; nothing where that has just been finished."""
    data = site_of(request).places.files(run_id).read(PREVIEW)
    if data is None:
        return Response(status_code=204)
    return Response(data, media_type="image/png")
