"""Pages of a run's trace: messages of an MLLM call, comparison of attempts, forks, exports."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from pleinair.app.runs.calls import read_calls
from pleinair.app.runs.request import read_request
from pleinair.app.runs.row import Run
from pleinair.app.server.site import LinkedGallery, site_of
from pleinair.app.storyboard import words
from pleinair.app.storyboard.export import exported
from pleinair.app.trace.compare import compare
from pleinair.tools.types import BadInput

TYPES = {"html": "text/html; charset=utf-8", "png": "image/png", "json": "application/json"}
router = APIRouter()


@router.get("/compare")
def compare_page(request: Request, left: str, right: str) -> HTMLResponse:
    """Compare two attempts, each as RUN:NUMBER or RUN."""
    comparison = compare(left, right)
    sides = [
        {
            "side": side,
            "label": label,
            "image": _gallery(side.run).stored(side.attempt.attempt.picture),
            "prompt": read_request(side.run.request_json).prompt,
        }
        for side, label in ((comparison.left, "Left"), (comparison.right, "Right"))
    ]
    return HTMLResponse(
        site_of(request).render("compare.html", comparison=comparison, sides=sides, words=words)
    )


def _gallery(run: Run) -> LinkedGallery:
    return LinkedGallery(run.id, read_request(run.request_json))


@router.get("/runs/{run_id}/export.{kind}")
def export(request: Request, run_id: str, kind: str) -> Response:
    """Send the storyboard of a run as HTML or PNG, or its trace as JSON, to be stored."""
    site = site_of(request)
    run = site.runs.get(run_id)
    if kind not in TYPES:
        raise BadInput(f"export.{kind}: accepted: {', '.join(TYPES)}")
    name = f"{read_request(run.request_json).slug}-{run.id}.{kind}"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(exported(run, site.places, f".{kind}"), media_type=TYPES[kind], headers=headers)


@router.get("/runs/{run_id}/calls/{number}")
def call_page(request: Request, run_id: str, number: int) -> HTMLResponse:
    """Show the messages of one MLLM call."""
    site = site_of(request)
    run = site.runs.get(run_id)
    calls = [call for call in read_calls(site.places.files(run.id)) if call.number == number]
    if not calls:
        raise BadInput(f"run {run_id}: no messages of an MLLM call {number} are stored")
    return HTMLResponse(site.render("call_page.html", run=run, call=calls[0]))
