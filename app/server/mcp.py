"""MCP over HTTP: at `/mcp` of the server with the pages, or alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pleinair.app.mcp.access import Access, local_access
from pleinair.app.mcp.server import Context, GetAccess, new_server
from pleinair.app.paths import Paths
from pleinair.app.server.clients import client_of
from pleinair.app.server.security import Guard, Rules, allowed_hosts
from pleinair.app.server.site import Options, Site

PATH = "/mcp"


class Endpoint:
    """ASGI application of one path, which keeps nothing of a request; it serves while `running`.

    Host, origin, token and length of a request are checked by `Guard`.
    """

    def __init__(self, access: GetAccess) -> None:
        self._manager = StreamableHTTPSessionManager(new_server(access), stateless=True)
        self.running = self._manager.run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        await self._manager.handle_request(scope, receive, send)

    @property
    def route(self) -> Route:
        """The route; there is no stream of messages that answer nothing, so no GET."""
        return Route(PATH, self, methods=["POST"])


def with_pages(site: Site) -> Endpoint:
    """Return the endpoint of a server that has the pages of runs, and executes them."""

    def access(context: Context) -> Access:
        request = _request(context)
        return Access(
            client=client_of(request),
            most=site.options.queue,
            address=str(request.base_url).rstrip("/"),
            is_closing=lambda: site.watcher.is_closed,
        )

    return Endpoint(access)


def create(options: Options, places: Paths, site: Site) -> ASGIApp:
    """Return an application that has nothing but MCP; detached workers execute its runs."""
    here = replace(local_access(), files=False, most=options.queue, is_closing=lambda: site.watcher.is_closed)
    endpoint = Endpoint(lambda context: replace(here, client=client_of(_request(context))))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with endpoint.running():
            yield

    app = Starlette(routes=[endpoint.route], lifespan=lifespan)
    return Guard(app, Rules(allowed_hosts(options.host, options.port, options.names), options.token))


def _request(context: Context) -> Request:
    request = context.request
    assert isinstance(request, Request), "the transport is HTTP"
    return request
