"""Answers to requests that fail: a page with what to do, or JSON for programs; never a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from pleinair.app.runs.queue import QueueFull
from pleinair.app.runs.store import Busy
from pleinair.app.server.clients import wants_json
from pleinair.app.server.security import Refusal
from pleinair.app.server.site import Site
from pleinair.app.server.v1.errors import ApiFault, is_programmatic, response_of
from pleinair.tools.storage.away import Away
from pleinair.tools.types import BadInput, NotFound, PleinairError

AWAY = 10  # seconds after which to try again what needs a database or storage that is away
TITLES = {
    400: "This is not possible",
    401: "This server needs a token",
    403: "This request was refused",
    404: "There is no such page",
    405: "This address takes no such request",
    409: "Something else is changing this",
    413: "This is too large",
    421: "This server is not called by this name",
    422: "This is not possible",
    429: "All places in the queue are taken",
    500: "Something is broken in pleinair",
    503: "The database or the storage of the images cannot be reached",
}
REMEDIES = {
    404: "It may have been deleted. The chats are listed under Chat, and the runs under Runs.",
    413: "Send fewer or smaller files at once.",
    405: "Open the page again, and use its buttons.",
    421: "Restart it with `--host-name NAME`, with the name in your browser's address bar.",
    500: "Nothing that was stored is lost. The terminal of `pleinair serve` shows the error.",
}


def install(app: FastAPI) -> None:
    """Add the handlers of all errors to an application."""
    for kind in (PleinairError, Refusal, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _answer)


def error_page(site: Site, status: int, message: str, remedy: str = "") -> str:
    """Return the page of an error."""
    title = TITLES.get(status) or HTTPStatus(status).phrase
    remedy = remedy or REMEDIES.get(status, "")
    message = "" if message == HTTPStatus(status).phrase else message  # which says no more than the title
    return site.render("error.html", status=status, title=title, message=message, remedy=remedy)


def _answer(request: Request, error: Exception) -> Response:
    status, message, remedy, headers = _facts(error)
    if is_programmatic(request.url.path):
        return response_of(request, error, status, str(PleinairError(message, remedy)), headers)
    if wants_json(request):
        return JSONResponse({"error": {"message": message, "remedy": remedy}}, status, headers)
    if status == 404 and not request.url.path.startswith("/library"):
        remedy = ""  # which is for the terminal
    page = error_page(request.app.state.site, status, message, remedy)
    return HTMLResponse(page, status, headers)


def http_status(error: PleinairError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, ApiFault):
        return error.status
    kinds: dict[type[PleinairError], int] = {
        NotFound: 404,
        BadInput: 400,
        QueueFull: 429,
        Busy: 409,
        Away: 503,
    }
    return next((status for kind, status in kinds.items() if isinstance(error, kind)), 500)


def headers_of(error: PleinairError) -> dict[str, str]:
    """Return the headers of an error's response: when to try again, or not to."""
    if isinstance(error, ApiFault):
        return error.headers
    if isinstance(error, Away):
        return {"retry-after": str(AWAY)}
    return {"retry-after": str(error.retry_after)} if isinstance(error, QueueFull) else {}


def _facts(error: Exception) -> tuple[int, str, str, Mapping[str, str]]:
    """Return the status, message, remedy and headers of an error."""
    if isinstance(error, PleinairError):
        return http_status(error), error.message, error.remedy, headers_of(error)
    if isinstance(error, Refusal):
        return error.status, error.text, "", {}
    if isinstance(error, RequestValidationError):
        faults = [f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors()]
        return 422, "; ".join(faults[:3]), "", {}
    if isinstance(error, HTTPException):
        return error.status_code, str(error.detail), "", error.headers or {}
    return 500, "An unexpected error has happened.", "", {}
