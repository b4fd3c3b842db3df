"""Form that forks a run at a step: another reference, prompt, seed or profile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import FormData

from pleinair.agent.state import MAX_SEED, check_prompt
from pleinair.app.runs.request import read_request
from pleinair.app.runs.row import Run
from pleinair.app.server.clients import client_of
from pleinair.app.server.decisions import hit_key
from pleinair.app.server.errors import headers_of, http_status
from pleinair.app.server.forms import MOST_FIELDS, MOST_FILES, FieldFault, digest_of, new_name, of_field
from pleinair.app.server.site import LinkedGallery, Site, site_of
from pleinair.app.server.uploads import own_image, uploads
from pleinair.app.settings import profiles, require_profile
from pleinair.app.storyboard import words
from pleinair.app.trace.fork import submit_fork
from pleinair.app.trace.references import Choice, concepts_of, hits_of
from pleinair.app.trace.steps import Step, find_step, steps_of
from pleinair.app.trace.trace import license_text, score_text, trace_begun
from pleinair.tools.types import BadInput, PleinairError

MOST_DIGITS = 100  # of a seed
KEEP, NONE, UPLOAD = "keep", "none", "upload"  # choices beside the hits, whose values are their keys
router = APIRouter()


def _read_seed(text: str) -> int | None:
    """Return the seed that is typed, None for an empty field; raises `BadInput`."""
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
        raise BadInput(f"seed {text[:40]!r}: must be a whole number from 0")
    if int(text) > MAX_SEED:
        raise BadInput(f"seed {text[:40]}: must be 0 to {MAX_SEED}")
    return int(text)


@dataclass(frozen=True)
class ForkForm:
    """Form of a fork at a step, with the values typed so far."""

    site: Site
    run: Run
    steps: list[Step]
    name: str
    step: Step
    values: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, site: Site, run_id: str, at: str, values: dict[str, str] | None = None) -> ForkForm:
        """Return the form for a step; without one for the last that repaired an image, or else the first."""
        run = site.runs.get(run_id)
        steps = steps_of(run, site.places)
        if not steps:
            raise BadInput(f"run {run_id}: it has no steps yet")
        generated = [step for step in steps if step.image]
        name, step = find_step(steps, at or (generated[-1] if generated else steps[0]).names[0])
        return cls(site, run, steps, name, step, values or {})

    @property
    def prompt(self) -> str:
        """The prompt that the step has without a change."""
        return self.step.request.prompt if self.step.request else read_request(self.run.request_json).prompt

    @property
    def seed(self) -> int:
        """The seed that the step has without a change."""
        return self.step.request.seed if self.step.request else self.run.seed

    def concepts(self) -> Iterator[dict[str, Any]]:
        """Yield the concepts of the image with what can be their references."""
        if self.step.image is None:
            return
        trace = trace_begun(self.run, self.site.places)
        gallery, hits = LinkedGallery(self.run.id, read_request(self.run.request_json)), hits_of(trace)
        for number, (concept, reference) in enumerate(concepts_of(trace, self.step).items()):
            others = [hit for hit in hits.get(concept, ()) if not reference or hit.id != reference.hit.id]
            yield {
                "number": number,
                "name": concept,
                "reference": reference,
                "file": words.file_name(reference.hit) if reference else "",
                "image": reference and gallery.stored(reference.picture, reference.crop),
                "choice": self.values.get(f"reference-{number}", KEEP),
                "own": self.values.get(f"image-{number}", ""),
                "own_name": self.values.get(f"image-name-{number}", ""),
                "hits": [
                    {
                        "key": hit_key(hit),
                        "name": words.file_name(hit),
                        "image": gallery.thumbnail(hit),
                        "text": hit.caption or hit.id,
                        "facts": [score_text(hit), license_text(hit)],
                    }
                    for hit in others
                ],
            }

    def page(self, fault: PleinairError | None = None) -> HTMLResponse:
        """Return the page, with a fault beside its field."""
        page = self.site.render(
            "fork.html",
            form=self,
            run=self.run,
            concepts=list(self.concepts()),
            profiles=sorted(profiles()),
            field=fault.field if isinstance(fault, FieldFault) else "",
            fault=fault,
            name=new_name(),
            is_driven=read_request(self.run.request_json).graph == "react",
        )
        return HTMLResponse(page, http_status(fault), headers_of(fault)) if fault else HTMLResponse(page)

    def submitted(self, form: FormData, client: str) -> Run:
        """Write the row of the fork; raises `BadInput` and `QueueFull`."""
        prompt, profile = self.values.get("prompt", "").strip(), self.values.get("profile", "")
        with of_field("prompt"):
            check_prompt(prompt)
        with of_field("seed"):
            seed = _read_seed(self.values.get("seed", "").strip())
        with of_field("profile"):
            if profile:
                require_profile(profile)
        return submit_fork(
            self.run.id,
            self.name,
            client=client,
            most=self.site.options.queue,
            idempotency_key=digest_of(form, self.name),
            prompt=None if prompt == self.prompt else prompt,
            seed=None if seed == self.seed else seed,
            profile=profile or None,
            references=dict(self._choices(form)),
        )

    def _choices(self, form: FormData) -> Iterator[tuple[str, Choice]]:
        """Yield the references that were exchanged; an uploaded image counts where it is chosen."""
        if self.step.image is None:
            return
        trace = trace_begun(self.run, self.site.places)
        hits = hits_of(trace)
        for number, concept in enumerate(concepts_of(trace, self.step)):
            choice, name = self.values.get(f"reference-{number}", KEEP), f"upload-{number}"
            if choice == UPLOAD:
                with of_field(name):
                    upload = own_image(self.values, number, uploads(form, name), self.site.places)
                    if upload is None:
                        raise BadInput("Choose a file first.")
                yield concept, upload.picture
            elif choice == NONE:
                yield concept, ""
            elif choice != KEEP:
                ids = [hit.id for hit in hits.get(concept, ()) if hit_key(hit) == choice]
                yield concept, ids[0] if ids else choice


@router.get("/runs/{run_id}/fork")
def fork_page(request: Request, run_id: str, at: str = "") -> HTMLResponse:
    """Show the form that forks a run."""
    return ForkForm.of(site_of(request), run_id, at).page()


@router.post("/runs/{run_id}/fork")
async def fork(request: Request, run_id: str) -> Response:
    """Queue a fork: 303 to its page, or the form again with what is wrong."""
    async with request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS) as form:
        return await run_in_threadpool(_fork, request, run_id, form)


def _fork(request: Request, run_id: str, form: FormData) -> Response:
    values = {name: value for name, value in form.items() if isinstance(value, str)}
    fork_form = ForkForm.of(site_of(request), run_id, values.get("at", ""), values)
    try:
        run = fork_form.submitted(form, client_of(request))
    except PleinairError as fault:
        return fork_form.page(fault)
    return RedirectResponse(f"/runs/{run.id}", status_code=303)
