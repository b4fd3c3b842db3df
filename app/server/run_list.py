"""List of runs: search, selection, download and deletion."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import IO, Annotated, Any, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.background import BackgroundTask

from pleinair.app.runs.download import zip_of
from pleinair.app.runs.event_rows import EventRows
from pleinair.app.runs.listing import RunFilter, choices_of, page_of
from pleinair.app.runs.retention import REASONS, delete, planned, size_text
from pleinair.app.runs.row import Run
from pleinair.app.runs.tables import OPEN
from pleinair.app.server.site import IMMUTABLE, Row, Site, png, site_of, stored_png
from pleinair.tools.images.reading import read_picture
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import BadInput, Ending

PAGE = 48  # runs on a page
NEAR = 2  # pages before and after the present one that are linked
SIDE = 384  # pixels of the longer side of a thumbnail
IN_MEMORY = 16 * 2**20  # bytes of a ZIP file before it goes to the disk
STATUSES = (*OPEN, *(ending for ending in get_args(Ending) if ending not in OPEN))
router = APIRouter()
Ids = Annotated[list[str], Query(alias="run", max_length=1000)]


@dataclass(frozen=True)
class Card:
    """Run of the list."""

    row: Row
    graph: str
    profile: str
    facts: str  # attempts and seconds, "" before the end

    @classmethod
    def of(cls, run: Run, site: Site) -> Card:
        """Return what the list shows of a run; little of a damaged one."""
        request = json.loads(run.request_json) if run.request_json else {}
        profile = request.get("settings", {}).get("profile", "")
        facts = _end_of(site.places.events(run.id), run.updated) if run.outcome_json else ""
        return cls(site.row(run), str(request.get("graph", "")), str(profile), facts)


@router.get("/runs")
def run_list(
    request: Request,
    search: Annotated[str, Query(max_length=500)] = "",
    status: str = "",
    graph: str = "",
    profile: str = "",
    since: str = "",
    until: str = "",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    selected: str = "",
    deleted: int = 0,
    kept: int = 0,
) -> HTMLResponse:
    """List the runs that match, newest first."""
    site = site_of(request)
    fields = {"search": search, "status": status, "graph": graph, "profile": profile}
    which, faults = RunFilter.model_validate(fields), {}
    for name, text, days in (("since", since, 0), ("until", until, 1)):
        try:
            which = which.model_copy(update={name: _day(text, days)})
        except (ValueError, OverflowError):
            faults[name] = f"{text[:40]!r}: a date has the form 2026-01-31."
    found = page_of(site.runs, which, PAGE, (page - 1) * PAGE)
    pages = max(1, -(-found.total // PAGE))
    if page > pages:
        page, found = pages, page_of(site.runs, which, PAGE, (pages - 1) * PAGE)
    fields |= {"since": since, "until": until}
    values = {
        "fields": fields,
        "faults": faults,
        "cards": [Card.of(run, site) for run in found.runs],
        "total": found.total,
        "page": page,
        "links": _links(fields, page, pages),
        "all_address": _address(fields, page)
        + ("&" if "?" in _address(fields, page) else "?")
        + "selected=all",
        "is_selected": selected == "all",
        "statuses": STATUSES,
        "graphs": choices_of(site.runs, "graph"),
        "profiles": choices_of(site.runs, "profile"),
        "deleted": deleted,
        "kept": kept,
    }
    return HTMLResponse(site.render("run_list.html", **values), 400 if faults else 200)


@router.get("/runs/download.zip")
def download(request: Request, run: Ids = []) -> Response:  # noqa: B006 (FastAPI copies it)
    """Send images, sidecars and credits of runs as one ZIP file."""
    site = site_of(request)
    if not run:
        raise BadInput("no run is selected", "Select some in the list of runs.")
    file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)
    try:
        zip_of([site.runs.get(id) for id in run], site.places, file)
    except BaseException:
        file.close()
        raise
    size = file.tell()
    file.seek(0)
    name = f"pleinair-{run[0] if len(run) == 1 else f'{len(run)}-runs'}.zip"
    headers = {"content-disposition": f'attachment; filename="{name}"', "content-length": str(size)}
    parts = iter(lambda: file.read(2**20), b"")
    return StreamingResponse(
        parts, media_type="application/zip", headers=headers, background=BackgroundTask(file.close)
    )


@router.get("/runs/delete")
def ask_before_deletion(request: Request, run: Ids = []) -> HTMLResponse:  # noqa: B006
    """Show what a deletion would remove, and what stays."""
    site = site_of(request)
    if not run:
        raise BadInput("no run is selected", "Select some in the list of runs.")
    runs = site.runs.get_some(run)
    plan = planned(site.runs, site.places, run)
    with_threads = planned(site.runs, site.places, run, threads=True)
    values = {
        "runs": [site.row(runs[id]) for id in with_threads.sizes if id in runs],
        "kept": [(site.row(runs[id]), REASONS[why]) for id, why in plan.kept.items() if id in runs],
        "in_threads": [id for id in with_threads.sizes if id not in plan.sizes],
        "size": size_text(sum(plan.sizes.values())),
        "count": len(plan.sizes),
    }
    return HTMLResponse(site.render("delete_runs.html", **values))


@router.post("/runs/delete")
def delete_runs(
    request: Request,
    run: Annotated[list[str], Form(max_length=1000)] = [],  # noqa: B006
    threads: Annotated[bool, Form()] = False,
) -> Response:
    """Delete runs, and lead back to the list."""
    site = site_of(request)
    result = delete(site.runs, site.places, run, threads=threads)
    counts = urlencode({"deleted": len(result.sizes), "kept": len(result.kept)})
    return RedirectResponse(f"/runs?{counts}", status_code=303)


@router.get("/runs/{run_id}/thumbnails/{name}.webp")
def thumbnail(request: Request, run_id: str, name: str) -> Response:
    """Send an image of a run, reduced."""
    site = site_of(request)
    data = stored_png(ArtifactStore(site.places.pictures(run_id)), name)
    if data is None:
        return png(None)
    image, file = read_picture(data), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(file, "WEBP", quality=82, lossless=max(image.size) <= SIDE // 4)
    return Response(file.getvalue(), media_type="image/webp", headers=IMMUTABLE)


@lru_cache(maxsize=4096)
def _end_of(events: Path | EventRows, updated: float) -> str:
    """Return attempts and seconds of a run that has ended, "" if its log cannot be read."""
    try:
        end = json.loads(events.read_bytes().splitlines()[-1])["data"]
        count, seconds = len(end["attempts"]), sum(usage["seconds"] for usage in end["usage"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return f"{count} attempt{'s' * (count != 1)}, {seconds:.1f} s"


def _day(text: str, days: int = 0) -> float | None:
    """Return when a day begins here, or the day so many days later; None without one."""
    if not text:
        return None
    return datetime.combine(date.fromisoformat(text) + timedelta(days), datetime.min.time()).timestamp()


def _address(fields: Mapping[str, str], page: int) -> str:
    query: dict[str, Any] = {name: value for name, value in fields.items() if value}
    query |= {"page": page} if page > 1 else {}
    return f"/runs?{urlencode(query)}" if query else "/runs"


def _links(fields: Mapping[str, str], page: int, pages: int) -> list[tuple[int, str]]:
    """Return number and address of the pages that are linked: the first, the last, and those near."""
    near = range(max(1, page - NEAR), min(pages, page + NEAR) + 1)
    return [(number, _address(fields, number)) for number in sorted({1, *near, pages})]
