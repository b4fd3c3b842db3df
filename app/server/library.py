"""Pages of the library: contents, search, one image, indexing, duplicates, and what it lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sse_starlette import ServerSentEvent

from pleinair.app.chat.threads import Threads
from pleinair.app.libraries import index_folder
from pleinair.app.library import job as jobs
from pleinair.app.library.duplicates import stored_duplicates
from pleinair.app.library.gaps import day, gaps_of, looked_for
from pleinair.app.library.image_list import MAX_WORDS, ImageList
from pleinair.app.library.opened import MAX_QUERY, OpenLibrary, SearchResult
from pleinair.app.library.thumbnails import Size, thumbnail
from pleinair.app.runs.store import Busy
from pleinair.app.server.feed import LAST_ID, streamed
from pleinair.app.server.forms import FieldFault, of_field
from pleinair.app.server.site import IMMUTABLE, Options, Site, site_of, stored_png
from pleinair.app.server.uploads import stored, uploads
from pleinair.app.settings import load
from pleinair.app.trace.trace import score_text
from pleinair.tools.images.reading import read_picture
from pleinair.tools.retrieval.changes import stored_catalogue
from pleinair.tools.retrieval.licenses import Licenses, is_free
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.storage.files import stamp_of
from pleinair.tools.types import BadInput, NotFound, PleinairError

PAGE = 60  # images on a page
MOST_GROUPS = 30  # of duplicates on a page
MOST_GAPS = 100  # on a page
MOST_CHECKED = 30  # gaps that are searched for again in one request
MOST_RUNS = 12  # of an image that are listed
MOST_HITS = 96
LIKE = 8  # images like another one on its page
POLL = 0.25  # seconds between two looks at a job,
LOOK = 1.0  # and at what the monitor of the library has seen
router = APIRouter()
Number = Annotated[int, Query(ge=1, le=1_000_000)]
Id = Annotated[str, Query(max_length=4096)]
Words = Annotated[str, Query(max_length=MAX_QUERY)]


@router.get("/library")
def contents(
    request: Request,
    words: Annotated[str, Query(max_length=MAX_WORDS)] = "",
    licenses: Licenses = "any",
    page: Number = 1,
) -> HTMLResponse:
    """List the images of the library, filtered by their captions and licenses."""
    values: dict[str, Any] = {"words": words, "licenses": licenses, "page": page, "shown": None}
    site = site_of(request)
    try:
        library = _library(request)
        shown = library.images.page(words, licenses, (page - 1) * PAGE, PAGE)
    except PleinairError as error:
        return _page(request, "library.html", **values, error=error)
    values |= {"shown": shown, "images": library.images, "pages": -(-shown.total // PAGE) or 1}
    values["address"] = f"/library?{urlencode({'words': words, 'licenses': licenses})}"
    values |= _state(site, library.library.catalogue.path.name if library.library.catalogue else "")
    return _page(request, "library.html", **values, error=None)


@router.post("/library/read")
def read_again(request: Request) -> Response:
    """Compare the library with its index now, or read the folders of one that is not indexed again."""
    site_of(request).libraries.forget()
    site_of(request).monitor.look(indexes=False)
    return RedirectResponse("/library", status_code=303)


@router.get("/library/changes/feed")
async def changes(request: Request, shown: Annotated[str, Query(alias="list", max_length=64)]) -> Response:
    """Send how the library's folders differ from its index whenever that changes.

    `list` is the file name of the catalogue whose images the page lists.
    """
    return streamed(_changes(site_of(request), shown, request.headers.get(LAST_ID, "")))


async def _changes(site: Site, shown: str, last: str) -> AsyncGenerator[ServerSentEvent]:
    while not site.watcher.is_closed:
        text = site.render("library_state.html", **await run_in_threadpool(_state, site, shown))
        if text != last:
            last = text
            yield ServerSentEvent(text)
        await asyncio.sleep(LOOK)


def _state(site: Site, shown: str) -> dict[str, Any]:
    """Return how the library's folders differ from its index, for a page that lists a catalogue's images."""
    job, indexed, is_outdated = jobs.current(site.places), None, False
    with suppress(PleinairError):
        folder = index_folder(load(), site.places)
        if (catalogue := stored_catalogue(folder)) and (stamp := stamp_of(catalogue.path)):
            indexed = datetime.fromtimestamp(stamp[1] / 1e9).astimezone()
            is_outdated = shown != catalogue.path.name
    is_indexing = bool(job and job.is_running and job.request.kind == "index")
    values = {"list": shown, "indexed": indexed, "is_outdated": is_outdated}
    return values | {"state": site.monitor.state, "progress": job.progress if job and is_indexing else None}


@router.get("/library/search")
def search(
    request: Request,
    words: Words = "",
    like: Id = "",
    image: Annotated[str, Query(max_length=64)] = "",
    run: Annotated[str, Query(max_length=64)] = "",
    k: Annotated[int, Query(ge=0, le=MOST_HITS)] = 0,
) -> HTMLResponse:
    """Search by words, by an image of the library, by an input image, or by an image of a run."""
    example = {name: text for name, text in (("like", like), ("image", image), ("run", run)) if text}
    values: dict[str, Any] = {"words": words, "result": None, "address": "", "images": None}
    if not (words.strip() or example):
        return _page(request, "library_search.html", **values, error=None)
    try:
        library = _library(request)
        count = k or library.settings.retrieval.k
        values["result"] = _result(site_of(request), library, words, example, count)
        values["images"] = library.images
    except PleinairError as error:
        return _page(request, "library_search.html", status=_status(error), **values, error=error)
    values |= {"count": count, "most": MOST_HITS, "run_k": library.settings.retrieval.k}
    values["address"] = f"/library/search?{urlencode(example or {'words': words})}"
    values["picture"] = _picture(library.images, example)
    return _page(request, "library_search.html", **values, error=None)


@router.post("/library/search")
async def search_upload(request: Request) -> Response:
    """Search by an uploaded image, or by words."""
    async with request.form(max_files=1, max_fields=8) as form:
        files, words = uploads(form, "image"), str(form.get("words", ""))[:MAX_QUERY]
        try:
            if not files:
                return RedirectResponse(f"/library/search?{urlencode({'words': words})}", status_code=303)
            picture, _ = await run_in_threadpool(stored, files[0], site_of(request).places)
        except PleinairError as error:
            values = {"words": words, "result": None, "address": "", "images": None}
            return _page(request, "library_search.html", status=_status(error), **values, error=error)
    return RedirectResponse(f"/library/search?image={picture.sha256}", status_code=303)


@router.get("/library/image")
def image_page(request: Request, id: Id) -> HTMLResponse:
    """Show one image: what is known of it, which runs used it, and others like it."""
    library = _library(request)
    item = library.images.get(id)
    uses = [run for run in site_of(request).retrieved.all().runs if id in run.used]
    values: dict[str, Any] = {"images": library.images, "item": item, "like": LIKE}
    values |= {"uses": uses[:MOST_RUNS], "use_count": len(uses), "file": library.library.location(id)}
    values["is_free"] = is_free(item.license)
    values["changed"] = datetime.fromtimestamp(item.mtime_ns / 1e9).astimezone()
    return _page(request, "library_image.html", **values)


@router.post("/library/use")
def use(request: Request, id: Annotated[str, Form(max_length=4096)]) -> Response:
    """Add an image of the library to the tray of the chat that changed last, or of a first one."""
    library, threads = _library(request), Threads(site_of(request).places)
    library.images.get(id)
    thread = next(iter(threads.newest(1)), None) or threads.create()
    with threads.opened(thread.id) as session:
        session.add_library_image(id, library.library)
    return RedirectResponse(f"/threads/{thread.id}#composer", status_code=303)


@router.get("/library/images/{size}/{key}.webp")
def image(request: Request, size: Size, key: str) -> Response:
    """Send a small copy of an image of the library by its key, which changes with the file."""
    data = thumbnail(_library(request).images, key, size, site_of(request).places)
    if data is None:
        return Response(status_code=404)
    return Response(data, media_type="image/webp", headers=IMMUTABLE)


@router.get("/library/index")
def index_page(request: Request) -> HTMLResponse:
    """Show the form to index a folder, and the job that is running or the last one."""
    return _index_page(request, "", None)


@router.post("/library/index")
async def index(request: Request) -> Response:
    """Start to index a folder in the background: the configured one, or any on one's own machine."""
    form = await request.form(max_files=0, max_fields=8)
    folder = str(form.get("folder", "")).strip()
    try:
        if folder and not is_own_machine(site_of(request).options):
            raise BadInput(
                "folder: this server can be reached from other machines, so only its own library is indexed",
                "Run `pleinair index FOLDER` on the machine of the server.",
            )
        await run_in_threadpool(jobs.start, site_of(request).places, "index", folder)
    except PleinairError as error:
        return _index_page(request, folder, error)
    return RedirectResponse("/library/index", status_code=303)


@router.post("/library/index/stop")
def stop(request: Request) -> Response:
    """Stop the job that is running; what it has indexed stays."""
    jobs.stop(site_of(request).places)
    return RedirectResponse("/library/index", status_code=303)


@router.get("/library/index/feed")
async def feed(request: Request) -> Response:
    """Send the job that is running whenever it has got further, to its end."""
    return streamed(_progress(site_of(request), request.headers.get(LAST_ID, "")))


async def _progress(site: Site, last: str) -> AsyncGenerator[ServerSentEvent]:
    while not site.watcher.is_closed:
        job = await run_in_threadpool(jobs.current, site.places)
        key = job.model_dump_json() if job else ""
        if key != last:
            last = key
            yield ServerSentEvent(site.render("library_live.html", job=job))
        if job is None or not job.is_running:
            yield ServerSentEvent("", event="ended")
            return
        await asyncio.sleep(POLL)


@router.get("/library/duplicates")
def duplicates_page(request: Request, page: Number = 1) -> HTMLResponse:
    """List the groups of images that are the same, as they were found last."""
    return _duplicates_page(request, page, None)


@router.post("/library/duplicates")
def look_for_duplicates(request: Request) -> Response:
    """Start to look for duplicates in the background."""
    try:
        load()  # what cannot be read is explained here
        jobs.start(site_of(request).places, "duplicates")
    except PleinairError as error:
        return _duplicates_page(request, 1, error)
    return RedirectResponse("/library/index", status_code=303)


@router.get("/library/gaps")
def gaps_page(
    request: Request, since: Annotated[str, Query(max_length=64)] = "", check: bool = False, page: Number = 1
) -> HTMLResponse:
    """Report what the library lacks; with `check` also what it has by now."""
    error, rows, retrieved = None, [], site_of(request).retrieved.all()
    try:
        with of_field("since"):
            begin = day(since)
        rows = gaps_of(retrieved.runs, begin)
        shown = rows[(page - 1) * MOST_GAPS : page * MOST_GAPS]
        if check:
            shown = [*looked_for(shown[:MOST_CHECKED], _library(request)), *shown[MOST_CHECKED:]]
    except PleinairError as caught:
        error, shown = caught, rows[:MOST_GAPS]
    field = error.field if isinstance(error, FieldFault) else ""
    values: dict[str, Any] = {
        "field": field,
        "gaps": shown,
        "since": since,
        "check": check,
        "checked": MOST_CHECKED,
    }
    values |= {"page": page, "pages": -(-len(rows) // MOST_GAPS) or 1, "retrieved": retrieved}
    values["prompts"] = {run.run: run.prompt for run in retrieved.runs} if rows else {}
    values["address"] = f"/library/gaps?{urlencode({'since': since})}"
    return _page(request, "library_gaps.html", status=_status(error) if error else 200, **values, error=error)


def is_own_machine(options: Options) -> bool:
    """Return whether only this machine reaches a server, so that its user may name any folder."""
    return options.host.strip("[]") in ("localhost", "127.0.0.1", "::1") and not options.names


def _library(request: Request) -> OpenLibrary:
    """Return the library of the settings, which are read anew; raise `BadInput` for unusable ones."""
    return site_of(request).libraries.of(load())


def _result(
    site: Site, library: OpenLibrary, words: str, example: dict[str, str], count: int
) -> SearchResult:
    if "like" in example:
        return library.search_like(example["like"], count)
    if not example:
        return library.search(words, count)
    place = site.places.pictures(example["run"]) if "run" in example else site.places.input_images
    data = stored_png(ArtifactStore(place), example.get("image", ""))
    if data is None:
        raise NotFound("The image to search for is missing.", "Choose it again.")
    return library.search_image(read_picture(data), count)


def _picture(images: ImageList, example: dict[str, str]) -> str:
    """Return the address of the image that was searched for, "" for a search by words."""
    if "like" in example:
        return f"/library/images/small/{images.key(images.get(example['like']))}.webp"
    if "run" in example:
        return f"/runs/{example['run']}/images/{example['image']}.png"
    return f"/images/{example['image']}.png" if example else ""


def _index_page(request: Request, folder: str, error: PleinairError | None) -> HTMLResponse:
    site = site_of(request)
    is_bad = isinstance(error, BadInput)
    values: dict[str, Any] = {"folder": folder, "error": error, "is_bad": is_bad}
    values["job"] = jobs.current(site.places)
    values["is_own"] = is_own_machine(site.options)
    return _page(request, "library_index.html", status=_status(error) if error else 200, **values)


def _duplicates_page(request: Request, page: int, error: PleinairError | None) -> HTMLResponse:
    values: dict[str, Any] = {"page": page, "result": None, "images": None, "pages": 1, "groups": ()}
    status = _status(error) if error else 200
    try:
        library = _library(request)
        values["images"], result = library.images, stored_duplicates(library.index)
    except PleinairError as fault:
        error, result = error or fault, None
    if result:
        values["result"], values["pages"] = result, -(-len(result.groups) // MOST_GROUPS) or 1
        values["groups"] = result.groups[(page - 1) * MOST_GROUPS : page * MOST_GROUPS]
    values["job"] = jobs.current(site_of(request).places)
    return _page(request, "library_duplicates.html", status=status, **values, error=error)


def _status(error: PleinairError) -> int:
    if isinstance(error, BadInput):
        return 404 if isinstance(error, NotFound) else 400
    return 409 if isinstance(error, Busy) else 500


def _page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    page = site_of(request).render(template, score_text=score_text, **values)
    return HTMLResponse(page, status)
