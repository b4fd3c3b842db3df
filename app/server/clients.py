"""Who sends a request, so that the runs of several clients take turns; nothing is permitted by it."""

from __future__ import annotations

import re
import secrets
from hashlib import sha256
from http.cookies import SimpleCookie

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "pleinair_client"
YEAR = 365 * 24 * 3600  # seconds
_ID = re.compile(r"[0-9a-f]{32}")


def client_of(request: Request) -> str:
    """Return the id of a browser, by its cookie, or of a program, by its address and token."""
    if cookie := _cookie(request):
        return cookie
    address = request.client.host if request.client else ""
    token = request.headers.get("authorization", "")
    return sha256(f"{address}\n{token}".encode()).hexdigest()[:32]


def wants_json(request: Request) -> bool:
    """Return whether a program sent a request, to which a page is no answer."""
    accept = request.headers.get("accept", "")
    return "text/html" not in accept or request.headers.get("content-type", "").startswith("application/json")


def _cookie(request: Request) -> str:
    cookie = request.cookies.get(COOKIE, "")
    return cookie if _ID.fullmatch(cookie) else ""


class Clients:
    """ASGI middleware that gives a browser its id with the first page."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; the cookie is set on pages only."""
        request = Request(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if request is None or wants_json(request) or _cookie(request):
            await self.app(scope, receive, send)
            return
        cookie = SimpleCookie({COOKIE: secrets.token_hex(16)})
        cookie[COOKIE] |= {"httponly": True, "samesite": "Lax", "path": "/", "max-age": YEAR}

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("set-cookie", cookie[COOKIE].OutputString())
            await send(message)

        await self.app(scope, receive, send_with_cookie)
