"""Pages of runs: one run as it happens, its images and exports."""

from __future__ import annotations

import io

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from pleinair.app.runs.calls import call_image
from pleinair.app.runs.request import read_request
from pleinair.app.runs.store import OPEN
from pleinair.app.server.decisions import decisions_of
from pleinair.app.server.feed import key_of
from pleinair.app.server.site import hit_key, png, site_of, stored_png
from pleinair.app.storyboard.gallery import Gallery
from pleinair.app.trace.trace import trace_begun
from pleinair.tools.images.crops import cut
from pleinair.tools.images.reading import read_picture
from pleinair.tools.storage.artifacts import ArtifactStore

router = APIRouter()


@router.get("/runs/{run_id}")
def run_page(request: Request, run_id: str) -> HTMLResponse:
    """Show a run."""
    site = site_of(request)
    run = site.runs.get(run_id)
    seen = key_of(site.versions([run_id]))  # before it is rendered, so that nothing is missed
    is_open, part, decisions = run.status in OPEN, site.render_run(run), decisions_of(run, site.places)
    values = {"run": run, "part": part, "seen": seen, "is_open": is_open, "decisions": decisions}
    values |= site.choices_of(run)
    return HTMLResponse(site.render("run_page.html", **values))


@router.get("/runs/{run_id}/images/{name}.png")
def image(request: Request, run_id: str, name: str, crop: str = "") -> Response:
    """Send an image of a run by its SHA-256, or a crop of it."""
    site = site_of(request)
    site.runs.get(run_id)
    folder = site.places.run(run_id)
    data = stored_png(ArtifactStore(folder / "pictures"), name) or call_image(folder, name)
    if data is None or not crop:
        return png(data)
    file = io.BytesIO()
    try:
        x0, y0, x1, y1 = map(float, crop.split(","))
        cut(read_picture(data), (x0, y0, x1, y1)).save(file, "PNG")
    except (ValueError, OverflowError):
        return png(None)
    return png(file.getvalue())


@router.get("/runs/{run_id}/hits/{name}.png")
def thumbnail(request: Request, run_id: str, name: str) -> Response:
    """Send a thumbnail of a library image that was retrieved in a run."""
    site = site_of(request)
    run = site.runs.get(run_id)
    trace = trace_begun(run, site.places)
    hits = (hit for retrieval in trace.retrievals.values() for hit in retrieval.hits)
    hit = next((hit for hit in hits if hit_key(hit) == name), None)
    shown = Gallery(run.id, read_request(run.request_json), site.places).thumbnail(hit) if hit else None
    if shown is None:
        return Response(status_code=404)
    return Response(shown.png, media_type="image/png", headers={"cache-control": "private, max-age=3600"})


@router.get("/runs/{run_id}/preview.png")
def preview(request: Request, run_id: str) -> Response:
    """Send the newest preview of the image in progress."""
    path = site_of(request).places.run(run_id) / "preview.png"
    return FileResponse(path, media_type="image/png") if path.is_file() else Response(status_code=404)
