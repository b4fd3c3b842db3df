"""Pages of runs: the list, one run as it happens, its images and exports, stop and approval."""

from __future__ import annotations

import io
from typing import Any, get_args

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.datastructures import FormData

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.app import api
from pleinair.app.runs.calls import call_image
from pleinair.app.runs.request import read_request
from pleinair.app.runs.store import OPEN
from pleinair.app.server.feed import key_of
from pleinair.app.server.site import hit_key, png, site_of, stored_png
from pleinair.app.storyboard import words
from pleinair.app.storyboard.gallery import Gallery
from pleinair.app.trace.trace import score_text, trace_begun
from pleinair.tools.images.crops import cut
from pleinair.tools.images.reading import read_picture
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, Ending

PAGE = 48  # runs on a page of the list
MOST_LISTED = 10_000  # newest runs that are searched
STATUSES = ("queued", "running", "waiting", *get_args(Ending))
router = APIRouter()


@router.get("/runs")
def run_list(request: Request, search: str = "", status: str = "", page: int = 1) -> HTMLResponse:
    """List the runs, newest first, with a search in their prompts."""
    site = site_of(request)
    rows = [row for row in map(site.row, site.runs.newest(MOST_LISTED)) if row.matches(search, status)]
    shown = rows[(page - 1) * PAGE : page * PAGE]
    values = {"search": search, "status": status, "page": page, "pages": -(-len(rows) // PAGE) or 1}
    return HTMLResponse(site.render("run_list.html", rows=shown, statuses=STATUSES, **values))


@router.get("/runs/{run_id}")
def run_page(request: Request, run_id: str) -> HTMLResponse:
    """Show a run."""
    site = site_of(request)
    run = site.runs.get(run_id)
    seen = key_of(site.versions([run_id]))  # before it is rendered, so that nothing is missed
    part, question = site.render_run(run), run.question
    shared = {"words": words, "score_text": score_text, "key": hit_key}
    is_open = run.status in OPEN
    values = {"run": run, "part": part, "seen": seen, "is_open": is_open, "question": question}
    values |= site.choices_of(run)
    return HTMLResponse(site.render("run_page.html", **values, **shared))


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
    except ValueError:
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


@router.post("/runs/{run_id}/stop")
def stop(request: Request, run_id: str) -> Response:
    """Stop a run at its next step; its best image stays."""
    site_of(request).runs.request_cancel(run_id)
    return RedirectResponse(f"/runs/{run_id}", status_code=303)


@router.post("/runs/{run_id}/answer")
async def answer(request: Request, run_id: str) -> Response:
    """Answer the question of a run that waits for approval."""
    form = await request.form()
    run = await run_in_threadpool(site_of(request).runs.get, run_id)
    if run.question is None:
        raise BadInput(f"run {run_id}: it waits for no approval")
    approval: dict[str, Any] | bool = form.get("decision") != "stop" and _changes(form, run.question)
    await run_in_threadpool(api.answer, run.id, approval)
    return RedirectResponse(f"/runs/{run_id}", status_code=303)


def _changes(form: FormData, question: ApprovalRequest) -> dict[str, Any]:
    """Return the fields of an `Approval` in which a form differs from its question."""
    used = {reference.concept: reference.hit.id for reference in question.references}
    names = [concept.name for concept in question.concepts]
    hits = {name: form.get(f"hit-{number}") for number, name in enumerate(names)}
    renamed = {name: str(form.get(f"name-{number}", name)).strip() for number, name in enumerate(names)}
    prompt = str(form.get("prompt", "")).strip()
    return {
        "vetoes": [str(id) for id in form.getlist("veto")],
        "hits": {name: id for name, id in hits.items() if id and id != used.get(name)},
        "concepts": {name: other for name, other in renamed.items() if other != name},
        "prompt": "" if prompt == question.prompt else prompt,
    }
