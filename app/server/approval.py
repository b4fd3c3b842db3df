"""Routes of a person's decisions: stop a run, accept its image, answer its question."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic_core import from_json
from starlette.datastructures import FormData

from pleinair.agent.approval.types import ApprovalRequest
from pleinair.agent.state import check_prompt
from pleinair.app import api
from pleinair.app.chat.threads import Threads
from pleinair.app.runs.events import has_image
from pleinair.app.runs.request import input_reference
from pleinair.app.runs.row import Run
from pleinair.app.runs.store import no_question
from pleinair.app.server.clients import client_of, wants_json
from pleinair.app.server.decisions import HIT, IMAGE, NONE, approval_form, find_reference
from pleinair.app.server.forms import MOST_FIELDS, MOST_FILES
from pleinair.app.server.site import Site, site_of
from pleinair.app.server.uploads import own_image, uploads
from pleinair.tools.types import BadInput, Hit, Picture, PleinairError

_BACK = re.compile(r"/(?:threads|runs)/[A-Za-z0-9-]{1,80}")  # pages that a form is on
router = APIRouter()


@router.post("/runs/{run_id}/stop")
async def stop(request: Request, run_id: str) -> Response:
    """Stop a run at its next step, or at once if it waits; its best image stays."""
    return await _ended(request, await run_in_threadpool(api.cancel, run_id))


@router.post("/runs/{run_id}/accept")
async def accept(request: Request, run_id: str) -> Response:
    """End a run as accepted with its best image, as `stop` does."""
    return await _ended(request, await run_in_threadpool(api.accept, run_id))


@router.post("/runs/{run_id}/answer")
async def answer(request: Request, run_id: str) -> Response:
    """Answer the question of a run that waits for approval: a form, or fields of an `Approval` as JSON."""
    site, client = site_of(request), client_of(request)
    run = await run_in_threadpool(site.runs.get, run_id)
    if request.headers.get("content-type", "").startswith("application/json"):
        run = await run_in_threadpool(api.answer, run.id, await _json(request), client=client)
        return await _ended(request, run)
    async with request.form(max_fields=MOST_FIELDS, max_files=MOST_FILES) as form:
        return await run_in_threadpool(_answer, site, run, form, client)


async def _json(request: Request) -> Any:
    try:
        return from_json(await request.body())
    except ValueError as error:  # also of half a surrogate pair, and of deep nesting
        raise BadInput("the answer is not JSON") from error


async def _ended(request: Request, run: Run) -> Response:
    """Return to the page of a form; answer a program with the status."""
    if wants_json(request):
        return JSONResponse({"run": run.id, "status": run.status}, 202)
    async with request.form(max_fields=MOST_FIELDS, max_files=MOST_FILES) as form:
        return RedirectResponse(_back(form, run.id), status_code=303)


def _back(form: FormData, run_id: str) -> str:
    """Return the address of the page that a form is on."""
    back = str(form.get("back", ""))
    return back if _BACK.fullmatch(back) else f"/runs/{run_id}"


def _answer(site: Site, run: Run, form: FormData, client: str) -> Response:
    """Answer a question by its form, or show the form again with its faults."""
    question, back = run.question, _back(form, run.id)
    if question is None:
        raise BadInput(no_question(run))
    if str(form.get("question", "")) != question.key:
        faults = {"": "This question is another one than you answered, which has been answered already."}
        return _again(site, run, question, None, faults, back)
    if form.get("decision") == "stop":
        api.answer(run.id, False, question=question.key, client=client)
        return RedirectResponse(back, status_code=303)
    reading = _Reading(site, question, form)
    if not reading.faults:
        try:
            api.answer(run.id, reading.approval, question=question.key, client=client)
        except PleinairError as error:
            reading.faults[""] = str(error)
        else:
            _keep(site, run, reading.kept)
            return RedirectResponse(back, status_code=303)
    return _again(site, run, question, reading.typed, reading.faults, back)


def _keep(site: Site, run: Run, hits: Mapping[str, Hit]) -> None:
    """Pin hits in the thread of a run."""
    threads = Threads(site.places)
    if hits and (thread := threads.of_run(run.id)):
        with threads.opened(thread.id) as session:
            session.keep_hits(hits)


def _again(
    site: Site,
    run: Run,
    question: ApprovalRequest,
    typed: Mapping[str, str] | None,
    faults: Mapping[str, str],
    back: str,
) -> Response:
    """Return the page of a form that could not be accepted."""
    form = approval_form(run, question, site.places, typed, faults)
    can_accept = has_image(site.places.events(run.id))
    values = {"run_id": run.id, "form": form, "back": back, "can_accept": can_accept}
    page = site.render("approval_page.html", **values)
    return HTMLResponse(page, 422 if typed is not None else 409)


class _Reading:
    """What a form says: the approval, the pins, and what is wrong with it, by field.

    Uploads are stored, so that they need not be sent again when another field is wrong.
    """

    def __init__(self, site: Site, question: ApprovalRequest, form: FormData) -> None:
        self._site, self._question, self._form = site, question, form
        self.typed = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        self.faults: dict[str, str] = {}
        self.approval: dict[str, Any] = {"vetoes": self._vetoes(), "prompt": self._prompt()}
        self.approval |= {"hits": {}, "given": [], "without": [], "concepts": self._names()}
        self.kept: dict[str, Hit] = {}
        if question.before == "references":
            for number, concept in enumerate(question.concepts):
                self._read_choice(number, concept.name)

    def _vetoes(self) -> list[str]:
        return [value for name, value in self.typed.items() if name.startswith("veto-")]

    def _prompt(self) -> str:
        prompt = self.typed.get("prompt", "").replace("\r\n", "\n").strip()
        try:
            check_prompt(prompt)
        except BadInput as error:
            self.faults["prompt"] = str(error)
        return "" if prompt == self._question.prompt else prompt

    def _names(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for number, concept in enumerate(self._question.concepts):
            name = self.typed.get(f"name-{number}", concept.name).strip()
            if not name or name in names.values():
                fault = "has no name" if not name else f"{name!r}: another concept has this name"
                self.faults[f"name-{number}"] = f"concept {fault}; each must have a name of its own"
            names[concept.name] = name
        return {concept: name for concept, name in names.items() if name != concept}

    def _read_choice(self, number: int, concept: str) -> None:
        """Read how a concept gets its reference: an upload, a hit, none, or as proposed."""
        image, choice = self._image(number), self.typed.get(f"use-{number}", "")
        if image and (choice.startswith(IMAGE) or uploads(self._form, f"file-{number}")):
            self.typed[f"use-{number}"] = f"{IMAGE}{image.sha256}"
            reference = input_reference(concept, image, self.typed[f"image-name-{number}"])
            self.approval["given"].append(reference.model_dump(mode="json"))
        elif choice == NONE:
            if find_reference(self._question, concept):
                self.approval["without"].append(concept)
        elif choice.startswith(HIT):
            self._choose(concept, choice.removeprefix(HIT), keep=f"keep-{number}" in self.typed)

    def _choose(self, concept: str, id: str, *, keep: bool) -> None:
        proposed = find_reference(self._question, concept)
        if keep or not proposed or proposed.hit.id != id:
            self.approval["hits"][concept] = id
        hits = [hit for retrieval in self._question.retrievals for hit in retrieval.hits]
        if keep and (hit := next((hit for hit in hits if hit.id == id), None)):
            self.kept[self.approval["concepts"].get(concept, concept)] = hit

    def _image(self, number: int) -> Picture | None:
        """Return the image of a person's own for a concept."""
        try:
            upload = own_image(self.typed, number, uploads(self._form, f"file-{number}"), self._site.places)
        except PleinairError as error:
            self.faults[f"file-{number}"] = str(error)
            return None
        return upload.picture if upload else None
