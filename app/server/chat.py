"""The chat page: messages as they happen, and the composer, whose form every button of the page sends.

So what is typed in it is stored with the thread by every action, and lost by none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import FormData

from pleinair.app import api
from pleinair.app.chat.about import about
from pleinair.app.chat.commands import as_command
from pleinair.app.chat.session import ChatSession
from pleinair.app.chat.thread import Thread, TrayImage
from pleinair.app.chat.threads import Threads
from pleinair.app.estimate.estimate import Estimate
from pleinair.app.runs.prompts import Unconfirmed
from pleinair.app.server.chats import SHARED, Chats, title_of, version_key
from pleinair.app.server.clients import client_of
from pleinair.app.server.composer import (
    APPROVALS,
    LICENSES,
    ONCE,
    Composer,
    concept_field,
    estimate_rows,
    located,
    read_options,
    typed,
    typed_tray,
)
from pleinair.app.server.decisions import hit_address, hit_key
from pleinair.app.server.errors import headers_of, http_status
from pleinair.app.server.feed import LAST_ID, streamed
from pleinair.app.server.forms import (
    FIELD,
    MOST_FIELDS,
    MOST_FILES,
    FieldFault,
    digest_of,
    new_name,
    of_field,
)
from pleinair.app.server.messages import LATEST, message_views, status_of
from pleinair.app.server.site import Site, site_of
from pleinair.app.server.uploads import stored, uploads
from pleinair.app.storyboard import words
from pleinair.app.texts import counted
from pleinair.app.trace.trace import score_text
from pleinair.tools.types import BadInput, PleinairError

NEW = "new"  # in addresses: a thread that is not stored yet
LISTED = 40  # newest threads beside a chat
MOST_FOUND = 200  # threads of a search
MOST_SEARCH = 500  # characters of a search
_THREAD = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
_NUMBER = re.compile(r"[0-9]{1,9}")
router = APIRouter()


@router.get("/")
def newest(request: Request) -> Response:
    """Redirect to the newest thread."""
    threads = Threads(site_of(request).places).newest(1)
    return _go(threads[0].id if threads else NEW, "end" if threads else "")


@router.get("/threads")
def thread_list(request: Request, search: Annotated[str, Query(max_length=MOST_SEARCH)] = "") -> HTMLResponse:
    """List the threads, newest first, with a search in their prompts."""
    site = site_of(request)
    threads = Threads(site.places).newest(MOST_FOUND, search)
    return HTMLResponse(
        site.render("chat_threads.html", threads=threads, search=search, thread=None, moment=_moment)
    )


@router.get("/threads/{thread_id}")
def thread_page(request: Request, thread_id: str, earlier: bool = False) -> HTMLResponse:
    """Show a thread: its latest messages, or all of them."""
    threads = Threads(site_of(request).places)
    thread = Thread.begin() if thread_id == NEW else threads.viewed(thread_id).thread
    address = f"/threads/{thread_id}"
    return HTMLResponse(_page(site_of(request), thread, thread.draft, address=address, earlier=earlier))


@router.get("/threads/{thread_id}/feed")
async def thread_feed(request: Request, thread_id: str, after: str = "") -> Response:
    """Send the messages of a thread whenever there is something new to show: not what the client has."""
    await run_in_threadpool(Threads(site_of(request).places).get, thread_id)
    chats: Chats = request.app.state.chats
    return streamed(chats.messages(thread_id, request.headers.get(LAST_ID, after)))


def _page(
    site: Site,
    thread: Thread,
    values: Mapping[str, str],
    *,
    address: str,
    fault: PleinairError | None = None,
    estimate: Estimate | None = None,
    notice: str = "",
    earlier: bool = False,
    tray: Sequence[TrayImage] | None = None,
) -> str:
    """Return the page of a thread, with what is typed in its composer and its tray."""
    seen = version_key(site, thread)  # before they are rendered, so that nothing is missed
    messages = message_views(site, thread)
    return site.render(
        "chat.html",
        thread=thread,
        title=title_of(thread),
        is_stored=(is_stored := address != f"/threads/{NEW}"),
        form_name=new_name() if is_stored else thread.id,
        threads=Threads(site.places).newest(LISTED),
        address=address,
        seen=seen,
        messages=messages,
        earlier=message_views(site, thread, earlier=True) if earlier else [],
        hidden=0 if earlier else max(len(thread.turns) - LATEST, 0),
        status=status_of(messages),
        approvals=APPROVALS,
        licenses=LICENSES,
        composer=Composer.of(thread, values),
        tray=thread.tray if tray is None else tray,
        fault=fault,
        field=fault.field if isinstance(fault, FieldFault) else "",
        notice=notice,
        estimate_rows=estimate_rows(estimate) if estimate else (),
        search="",
        moment=_moment,
        int=int,
        **SHARED,
    )


@router.post("/threads/{thread_id}/delete")
def delete(request: Request, thread_id: str) -> Response:
    """Delete a thread; its runs and their images stay."""
    Threads(site_of(request).places).delete(thread_id)
    return RedirectResponse("/", status_code=303)


@router.get("/threads/{thread_id}/references")
def references(request: Request, thread_id: str) -> HTMLResponse:
    """List the hits of the last message, to veto or pin them."""
    site = site_of(request)
    session = Threads(site.places).viewed(thread_id)
    run = session.thread.runs[-1] if session.thread.runs else ""
    images = {image.handle: f"/images/{image.picture.sha256}.png" for image in session.tray}
    cards = [
        (item, hit_key(item.hit), images.get(item.handle) or hit_address(run, item.hit))
        for item in session.references()
    ]
    values = {"thread": session.thread, "cards": cards, "address": f"/threads/{thread_id}"}
    return HTMLResponse(site.render("chat_references.html", words=words, score_text=score_text, **values))


@router.post("/threads/{thread_id}/references")
def decide(
    request: Request,
    thread_id: str,
    concept: Annotated[str, Form()],
    hit: Annotated[str, Form()],
    decision: Annotated[Literal["veto", "pin", "keep"], Form()],
) -> Response:
    """Veto or pin a hit, take that back, or put it into the tray."""
    with Threads(site_of(request).places).opened(thread_id) as session:
        hits = [(item.concept, hit_key(item.hit)) for item in session.references()]
        if (concept, hit) not in hits:
            raise BadInput("this reference is not listed any more", "Open the page again.")
        change = {"veto": session.veto, "pin": session.pin, "keep": session.keep}[decision]
        change(hits.index((concept, hit)) + 1)
    return RedirectResponse(f"/threads/{thread_id}/references", status_code=303)


@router.post("/threads/{thread_id}/{action}")
async def act(request: Request, thread_id: str, action: str) -> Response:
    """Keep what is typed, and do what a button says."""
    if action not in ACTIONS:
        return Response(status_code=404)
    async with request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS) as form:
        return await run_in_threadpool(_act, request, thread_id, action, form)


def _act(request: Request, thread_id: str, action: str, form: FormData) -> Response:
    site, values = site_of(request), typed(form)
    threads = Threads(site.places)
    digest = digest_of(form, action)
    thread = _begun(threads, form, digest) if thread_id == NEW else threads.get(thread_id)
    try:
        with threads.opened(thread.id) as session:
            if session.thread.handled[0] == digest:
                return RedirectResponse(session.thread.handled[1], status_code=303)
            _keep(session, form, values)
        with threads.opened(thread.id) as session:
            if session.thread.handled[0] == digest:
                return RedirectResponse(session.thread.handled[1], status_code=303)
            response = ACTIONS[action](Action(site, session, form, values, client_of(request)))
            if place := response.headers.get("location"):
                session.thread = session.thread.model_copy(update={"handled": (digest, place)})
            return response
    except PleinairError as error:
        stored_thread = threads.get(thread.id)
        tray = list(typed_tray(form, stored_thread.tray))
        address = f"/threads/{thread.id}"
        page = _page(site, stored_thread, values, address=address, fault=error, tray=tray)
        return HTMLResponse(page, http_status(error), headers_of(error))


def _begun(threads: Threads, form: FormData, digest: str) -> Thread:
    """Return the thread that a form begins; the same one where the form is sent again unchanged."""
    name = str(form.get(FIELD, ""))
    return threads.create(id=f"{name[:-8]}{digest[:8]}" if _THREAD.fullmatch(name) else "")


def _keep(session: ChatSession, form: FormData, values: Mapping[str, str]) -> None:
    """Store what is typed and chosen, and uploaded images; one that is not an image adds none."""
    session.thread = session.thread.model_copy(update={"draft": dict(values)})
    for image, changed in zip(session.tray, typed_tray(form, session.tray), strict=True):
        if changed.concept != image.concept:
            with of_field(concept_field(image.handle)):
                session.set_concept(image.handle, changed.concept)
        if changed.used != image.used:
            session.use(image.handle, changed.used)
    files = uploads(form, "images")
    if files:
        session.check_room(len(files))
    for upload in [stored(file, session.places) for file in files]:
        session.add_picture(upload.picture, upload.name)


@dataclass(frozen=True)
class Action:
    """What a button does, and to what."""

    site: Site
    session: ChatSession
    form: FormData
    values: Mapping[str, str]
    client: str

    def text(self, name: str) -> str:
        """Return the value of a button."""
        return str(self.form.get(name, ""))

    def numbers(self, name: str, count: int) -> list[int]:
        """Return the numbers of a button's value; raises `BadInput` for another count."""
        numbers = self.text(name).split()
        if len(numbers) != count or not all(_NUMBER.fullmatch(word) for word in numbers):
            raise BadInput(f"{name} {self.text(name)[:40]!r}: must be {counted(count, 'number')}")
        return [int(word) for word in numbers]

    def run(self) -> str:
        """Return the run of a button; raises `BadInput` for one of another thread."""
        if not self.session.thread.has_run(self.text("run")):
            raise BadInput(f"run {self.text('run')[:40]!r}: not of this thread")
        return self.text("run")

    def draft(self, **values: str) -> None:
        """Change what is typed."""
        draft = {**self.session.thread.draft, **values}
        self.session.thread = self.session.thread.model_copy(update={"draft": draft})

    def back(self, place: str = "end") -> Response:
        """Show the thread again, at a place of its page."""
        return _go(self.session.thread.id, place)

    def page(self, **parts: Any) -> Response:
        """Show the thread with what is typed, and parts that are shown once."""
        thread = self.session.thread
        return HTMLResponse(_page(self.site, thread, self.values, address=f"/threads/{thread.id}", **parts))

    @property
    def most(self) -> int:
        """Runs that the queue takes."""
        return self.site.options.queue


def _moment(seconds: float) -> datetime:
    """Return the local time of seconds since the epoch."""
    return datetime.fromtimestamp(seconds).astimezone()


def _go(thread_id: str, place: str = "end") -> Response:
    return RedirectResponse(f"/threads/{thread_id}{place and '#'}{place}", status_code=303)


def _send(action: Action) -> Response:
    options, session = read_options(action.values), action.session
    prompt = _prompt(action)
    if (command := as_command(prompt)) in ("/undo", "/redo"):
        action.draft(prompt="")
        return ACTIONS[command[1:]](action)
    if command.startswith("/"):
        raise FieldFault("prompt", "commands are for the terminal", "This page has buttons for them.")
    if reply := about(prompt, session):
        return action.page(notice=reply)
    try:
        session.submit(prompt, options, client=action.client, most=action.most)
    except Unconfirmed as error:
        message = f"the prompt asks for {error.num_images} images, and each costs money"
        raise FieldFault("num_images", message, f"Set Images to {error.num_images} to confirm it.") from error
    except BadInput as error:
        raise located(error, options, session.thread) from error
    action.draft(**dict.fromkeys(ONCE, ""))
    return action.back()


def _prompt(action: Action) -> str:
    if prompt := action.values.get("prompt"):
        return prompt
    raise FieldFault("prompt", "there is no prompt", "Describe what is to be seen.")


def _estimate(action: Action) -> Response:
    options, thread = read_options(action.values), action.session.thread
    try:
        estimate = action.session.estimate(_prompt(action), options)
    except BadInput as error:
        raise located(error, options, thread) from error
    return action.page(estimate=estimate)


def _again(action: Action) -> Response:
    action.session.redraw(client=action.client, most=action.most)
    return action.back()


def _version(action: Action) -> Response:
    number, version = action.numbers("version", 2)
    if number == len(action.session.thread.turns):
        action.session.select_version(number, version)
        return action.back()
    return _go(action.session.fork(number, version).id)


def _fork(action: Action) -> Response:
    """Begin a thread with the messages before one, whose prompt is then in the composer."""
    (number,) = action.numbers("message", 1)
    prompt = action.session.message(number).prompt
    fork = action.session.fork(number - 1)
    with Threads(action.site.places).opened(fork.id) as session:
        session.thread = session.thread.model_copy(update={"draft": {**fork.draft, "prompt": prompt}})
    return _go(fork.id)


def _undo(action: Action) -> Response:
    prompt = action.session.undo()
    if not action.values.get("prompt"):
        action.draft(prompt=prompt)
    return action.back()


def _redo(action: Action) -> Response:
    if action.session.redo() == action.values.get("prompt"):
        action.draft(prompt="")
    return action.back()


def _stop(action: Action) -> Response:
    """Stop all versions of a message."""
    action.session.stop(action.run())
    return action.back()


def _accept(action: Action) -> Response:
    api.accept(action.run())
    return action.back()


def _reuse(action: Action) -> Response:
    action.session.reuse(action.run())
    return action.back()


def _remove(action: Action) -> Response:
    action.session.remove(action.text("remove"))
    return action.back()


def _example(action: Action) -> Response:
    action.draft(prompt=action.text("example"))
    return action.back()


ACTIONS: dict[str, Callable[[Action], Response]] = {
    "keep": Action.back,
    "images": Action.back,
    "send": _send,
    "estimate": _estimate,
    "example": _example,
    "again": _again,
    "version": _version,
    "fork": _fork,
    "undo": _undo,
    "redo": _redo,
    "stop": _stop,
    "accept": _accept,
    "reuse": _reuse,
    "remove": _remove,
}
