"""The web application: routes, security, and the workers that execute its runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from pleinair.app.paths import Paths
from pleinair.app.runs.store import QueueFull
from pleinair.app.server import feed, requests, runs, trace, uploads
from pleinair.app.server.clients import Clients, wants_json
from pleinair.app.server.security import READING, Guard, Refusal, Rules, allowed_hosts
from pleinair.app.server.site import STATIC, Options, Site
from pleinair.app.server.workers import Workers
from pleinair.app.storyboard.html import TEMPLATES
from pleinair.tools.types import BadInput, PleinairError

STYLE = TEMPLATES / "storyboard.css"  # which the exported storyboard has too


def create(options: Options, places: Paths, site: Site | None = None) -> ASGIApp:
    """Return the application, guarded; the streams of its `site` end when its watcher is closed."""
    site = site or Site(options, places)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with workers, site.runs:
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.site = site
    workers = Workers(options.workers, site.watcher.tell)
    app.get("/static/storyboard.css")(_style)
    app.mount("/static", StaticFiles(directory=STATIC))
    for module in (feed, requests, runs, trace, uploads):
        app.include_router(module.router)
    app.add_exception_handler(PleinairError, _explain)
    app.add_exception_handler(Refusal, _refused)
    app.add_middleware(Clients)
    app.add_middleware(_Changes, after=(workers.look, site.watcher.tell))
    return Guard(app, Rules(allowed_hosts(options.host, options.port, options.names), options.token))


class _Changes:
    """ASGI middleware: what a request may have changed is looked at without delay."""

    def __init__(self, app: ASGIApp, after: Sequence[Callable[[], None]]) -> None:
        self._app, self._after = app, after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        if scope["type"] == "http" and scope["method"] not in READING:
            for call in self._after:
                call()


def _style() -> Response:
    return FileResponse(STYLE, media_type="text/css")


def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, PleinairError)
    status = 429 if isinstance(error, QueueFull) else 400 if isinstance(error, BadInput) else 500
    headers = {"retry-after": str(error.retry_after)} if isinstance(error, QueueFull) else {}
    if wants_json(request):
        message = {"message": error.message, "remedy": error.remedy}
        return JSONResponse({"error": message}, status, headers)
    site: Site = request.app.state.site
    return HTMLResponse(site.render("error.html", status=status, error=error), status, headers)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse({"error": {"message": str(error)}}, error.status)
