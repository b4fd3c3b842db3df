"""The web application: routes, security, and the workers that execute its runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from pleinair.app.paths import Paths
from pleinair.app.runs.results import installed
from pleinair.app.server import (
    approval,
    chat,
    errors,
    feed,
    forks,
    library,
    mcp,
    requests,
    run_list,
    runs,
    signin,
    trace,
    uploads,
)
from pleinair.app.server.chats import Chats
from pleinair.app.server.clients import Clients
from pleinair.app.server.security import READING, Guard, Rules, allowed_hosts
from pleinair.app.server.site import STATIC, Options, Site
from pleinair.app.server.v1 import images, models
from pleinair.app.server.workers import Workers
from pleinair.app.storyboard.html import TEMPLATES

PAGES = (
    approval,
    chat,
    feed,
    forks,
    library,
    requests,
    run_list,
    runs,
    signin,
    trace,
    uploads,
)
DESCRIBED = (requests, runs)  # pages that are for programs, too
REFUSALS: dict[int | str, dict[str, Any]] = {"4XX": {"description": "Refused, with the reason"}}
PROGRAMMATIC = (images, models)  # described by /openapi.json
STYLE = TEMPLATES / "storyboard.css"  # which the exported storyboard has too


def create(options: Options, places: Paths, site: Site | None = None) -> ASGIApp:
    """Return the application, guarded; the streams of its `site` end when its watcher is closed."""
    site = site or Site(options, places)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with workers, site.runs:
            async with endpoint.running():
                yield

    app = FastAPI(
        lifespan=lifespan, docs_url=None, redoc_url=None, title="pleinair", version=installed("pleinair")
    )
    app.state.site = site
    app.state.chats = chats = Chats(site)

    def tell() -> None:
        site.watcher.tell()
        chats.watcher.tell()

    app.state.workers = workers = Workers(options.workers, tell)
    endpoint = mcp.with_pages(site)
    rules = Rules(allowed_hosts(options.host, options.port, options.names), options.token)
    app.state.rules = rules
    app.get("/static/storyboard.css", include_in_schema=False)(_style)
    app.mount("/static", StaticFiles(directory=STATIC))
    for module in PAGES:
        app.include_router(module.router, include_in_schema=module in DESCRIBED, responses=REFUSALS)
    for api in PROGRAMMATIC:
        app.include_router(api.router)
    app.router.routes.append(endpoint.route)
    errors.install(app)
    app.add_middleware(Clients)
    app.add_middleware(_Changes, after=(workers.look, tell))
    return Guard(app, rules, partial(errors.error_page, site))


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
