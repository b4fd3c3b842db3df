"""Pages of a study: one pair of images at a time, blind, for one judge or several.

Neither pages nor addresses have a file name, a source or the order of a pair, and the images are sent without
their metadata. What a judge answers is on disk before the next pair is shown.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, cast
from urllib.parse import quote, unquote

from fastapi import APIRouter, FastAPI, Form, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

from pleinair.app.comparison.study import SIDES, Shown, Study
from pleinair.app.comparison.votes import ANSWERS, QUESTIONS, Answer, Progress, Question, Votes
from pleinair.app.paths import Paths
from pleinair.app.server import errors, signin
from pleinair.app.server.security import Guard, Rules, allowed_hosts
from pleinair.app.server.signin import MONTH
from pleinair.app.server.site import STATIC, Options, Site, png, site_of
from pleinair.app.storyboard.gallery import SMALL
from pleinair.app.storyboard.html import TEMPLATES
from pleinair.tools.images.reading import read_picture
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.storage.folder import read_file
from pleinair.tools.types import BadInput, NotFound, PleinairError

COOKIE = "pleinair_judge"
MOST_NAME = 60  # characters of a judge's name
TEXTS: Mapping[Question, str] = {
    "alignment": "Which image fits the prompt better?",
    "quality": "Which image has the better quality?",
    "preference": "Which image do you prefer overall?",
}
LABELS: Mapping[Answer, str] = {"left": "Left", "tie": "Tie", "right": "Right"}
router = APIRouter()
Text = Annotated[str, Form(max_length=500)]


@dataclass(frozen=True)
class Judging:
    """Study that a server shows, with the name of its only judge; "" for a name that each browser gives."""

    study: Study
    votes: Votes
    judge: str = ""


def create_judging(options: Options, places: Paths, site: Site, *, judging: Judging) -> ASGIApp:
    """Return an application that has the pages of a study and nothing else, guarded as `create` does."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.site, app.state.judging = site, judging
    rules = Rules(allowed_hosts(options.host, options.port, options.names), options.token)
    app.state.rules = rules
    app.get("/static/storyboard.css")(
        lambda: FileResponse(TEMPLATES / "storyboard.css", media_type="text/css")
    )
    app.mount("/static", StaticFiles(directory=STATIC))
    app.include_router(router)
    app.include_router(signin.router)
    errors.install(app)
    return Guard(app, rules, partial(errors.error_page, site))


@router.get("/")
def judge_page(request: Request, again: Annotated[str, Query(max_length=40)] = "") -> HTMLResponse:
    """Show the next pair of the judge, or ask for a name."""
    judge = _judge_of(request)
    return _pair_page(request, judge, again) if judge else _page(request, "judge_start.html", fault="")


@router.post("/start")
def start(request: Request, name: Text = "") -> Response:
    """Remember the judge in the browser; one without a name gets a random one."""
    name = " ".join(name.split())
    if len(name) > MOST_NAME or not name.isprintable():
        fault = f"A name has at most {MOST_NAME} characters that can be printed."
        return _page(request, "judge_start.html", status=422, fault=fault)
    response = _to_next()
    value = quote(name or f"judge-{secrets.token_hex(4)}", safe="")
    response.set_cookie(COOKIE, value, max_age=MONTH, httponly=True, samesite="strict")
    return response


@router.post("/vote")
def vote(
    request: Request,
    pair: Text,
    alignment: Text = "",
    quality: Text = "",
    preference: Text = "",
    action: Text = "vote",
) -> Response:
    """Store the answers about a pair, or put it behind the others."""
    judge, judging = _judge_of(request), _judging(request)
    if pair not in judging.study.by_key:
        raise NotFound("This pair is not in the study.", "Open the page again.")
    if not judge:
        return _to_next()
    if action == "skip":
        judging.votes.skip(judge, pair)
        return _to_next()
    answers = dict(zip(QUESTIONS, (alignment, quality, preference), strict=True))
    if any(answer not in ANSWERS for answer in answers.values()):
        return _pair_page(request, judge, pair, answers, "Answer all three questions, or skip the pair.")
    judging.votes.vote(judge, pair, cast(dict[Question, Answer], answers))
    return _to_next()


@router.post("/undo")
def undo(request: Request) -> Response:
    """Undo the judge's last vote or skip, and show its pair again."""
    judge = _judge_of(request)
    pair = _judging(request).votes.undo(judge) if judge else ""
    return _to_next(f"/?again={pair}" if pair else "/")


@router.post("/leave")
def leave() -> Response:
    """Forget the judge in the browser, so that another one can begin."""
    response = _to_next()
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


@router.get("/images/{name}.png")
def image(request: Request, name: str) -> Response:
    """Send an image of a pair without metadata, by its name in addresses."""
    shown = _judging(request).study.images.get(name)
    return png(encode_png(read_picture(_bytes(shown))) if shown else None)


def _bytes(shown: Shown) -> bytes:
    """Return the file of an image; raises `NotFound` if it is gone or has changed since the study began."""
    import hashlib

    data = b""
    with suppress(PleinairError):
        data = read_file(shown.file) or b""
    if hashlib.sha256(data).hexdigest() != shown.sha256:
        raise NotFound(
            "An image of this pair is gone or has changed.", "Skip the pair, or put the file back."
        )
    return data


def _judging(request: Request) -> Judging:
    judging: Judging = request.app.state.judging
    return judging


def _judge_of(request: Request) -> str:
    return _judging(request).judge or unquote(request.cookies.get(COOKIE, ""))[:MOST_NAME]


def _to_next(address: str = "/") -> RedirectResponse:
    return RedirectResponse(address, status_code=303)


def _pair_page(
    request: Request,
    judge: str,
    again: str = "",
    answers: Mapping[Question, str] | None = None,
    fault: str = "",
) -> HTMLResponse:
    judging = _judging(request)
    study, progress = judging.study, judging.votes.progress(judge)
    pair = progress.next(study.order(judge), again)
    values: dict[str, Any] = {
        "judge": judge,
        "fixed": bool(judging.judge),
        "done": len(progress.votes),
        "total": len(study.pairs),
    }
    values["can_undo"] = bool(progress.history)
    if pair is None:
        return _page(request, "judge_end.html", **values)
    return _page(
        request,
        "judge.html",
        status=422 if fault else 200,
        **values,
        pair=pair,
        images=[(side, study.image_name(pair, side), _size(pair.a, pair.b)) for side in SIDES],
        again=_is_skipped(progress, pair.key),
        questions=TEXTS,
        labels=LABELS,
        answers=answers or {},
        fault=fault,
    )


def _is_skipped(progress: Progress, key: str) -> bool:
    return key in progress.skipped


def _size(*shown: Shown) -> tuple[int, int, bool]:
    """Return the size of the largest of some images, for a place of one size for both sides."""
    width, height = max((each.width, each.height) for each in shown)
    return width, height, max(width, height) <= SMALL


def _page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(site_of(request).render(template, **values), status)


def require_judge(name: str) -> str:
    """Return a judge's name in one line; raises `BadInput` for one that is too long."""
    text = " ".join(name.split())
    if len(text) > MOST_NAME or not text.isprintable():
        raise BadInput(f"--judge {text[:80]!r}: at most {MOST_NAME} characters that can be printed")
    return text
