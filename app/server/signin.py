"""Sign-in page of a server with a token, and sign-out."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from pleinair.app.server.security import COOKIE, SIGN_IN, Rules, has_cookie
from pleinair.app.server.site import site_of

PAUSE = 0.3  # seconds before a wrong token is answered
MONTH = 30 * 24 * 3600  # seconds that a browser keeps the cookie
MOST = 500  # characters of a token or an address
router = APIRouter()
Address = Annotated[str, Query(alias="next", max_length=MOST)]


@router.get(SIGN_IN)
def sign_in_page(request: Request, then: Address = "/") -> Response:
    """Ask for the token; lead on where none is needed."""
    rules: Rules = request.app.state.rules
    if not rules.token or has_cookie(request.headers.getlist("cookie"), rules):
        return RedirectResponse(_own_address(then), status_code=303)
    return _page(request, then, "")


@router.post(SIGN_IN)
async def sign_in(
    request: Request,
    token: Annotated[str, Form(max_length=MOST)] = "",
    then: Annotated[str, Form(alias="next", max_length=MOST)] = "/",
) -> Response:
    """Set the cookie for the right token, and lead to the page that was asked for."""
    rules: Rules = request.app.state.rules
    address = request.client.host if request.client else ""
    if not rules.accepts(token.strip(), address):
        await asyncio.sleep(PAUSE)
        return _page(request, then, "This is not the token of this server.")
    response = RedirectResponse(_own_address(then), status_code=303)
    is_secure = request.headers.get("origin", "").startswith("https://")  # a proxy has taken it off
    response.set_cookie(
        COOKIE, rules.cookie, max_age=MONTH, httponly=True, samesite="strict", secure=is_secure
    )
    return response


@router.post("/sign-out")
def sign_out() -> Response:
    """Remove the cookie from the browser."""
    response = RedirectResponse(SIGN_IN, status_code=303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def _page(request: Request, then: str, fault: str) -> Response:
    page = site_of(request).render("sign_in.html", fault=fault, then=_own_address(then))
    return HTMLResponse(page, 401 if fault else 200)


def _own_address(address: str) -> str:
    """Return an address if it is a path of this server, else that of the first page."""
    is_own = address.startswith("/") and not address.startswith("//")
    return address if is_own and address.isprintable() and "\\" not in address else "/"
