"""Requests for images by a form or a program: queued for the workers, on disk before the answer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pleinair.app import api
from pleinair.app.server.clients import client_of, wants_json
from pleinair.app.server.site import site_of
from pleinair.app.settings import require_profile
from pleinair.tools.arguments import complaint
from pleinair.tools.retrieval.licenses import Licenses
from pleinair.tools.types import Approve, BadInput

MOST_FIELDS = 32  # of a form
router = APIRouter()


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


# no #, which joins the keys of a request's other images
IdempotencyKey = Annotated[str, Field(max_length=200, pattern=r'^[ -"$-~]*$')]
Optional = BeforeValidator(_none_if_empty)  # an empty field of a form counts as omitted


class RunRequest(BaseModel):
    """Fields of a request; what is omitted follows the settings."""

    model_config = ConfigDict(extra="forbid")

    prompt: str
    graph: str = "pleinair"
    profile: Annotated[str | None, Optional] = None
    seed: Annotated[int | None, Optional] = None
    width: Annotated[int | None, Optional] = None
    height: Annotated[int | None, Optional] = None
    num_images: Annotated[int | None, Field(ge=1), Optional] = None
    negative_prompt: Annotated[str | None, Optional] = None
    license: Annotated[Licenses | None, Optional] = None
    approve: Approve = ""
    idempotency_key: Annotated[IdempotencyKey | None, Optional] = None


class QueuedRuns(BaseModel):
    """Answer to a program."""

    run: str  # the first one
    runs: list[str]  # one an image


@router.post(
    "/runs",
    status_code=202,
    response_model=QueuedRuns,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": RunRequest.model_json_schema()}},
        }
    },
)
async def create_runs(request: Request) -> Response:
    """Queue the runs of a request: 303 to the first one's page, or 202 with their ids for a program."""
    fields = await _read(request)
    site = site_of(request)
    options: Any = fields.model_dump(exclude={"prompt", "approve"})
    if fields.approve:
        options["overrides"] = {"approve": fields.approve}
    runs = await run_in_threadpool(
        api.enqueue, fields.prompt, client=client_of(request), most=site.options.queue, **options
    )
    address = f"/runs/{runs[0].id}"
    if wants_json(request):
        answer = {"run": runs[0].id, "runs": [run.id for run in runs]}
        return JSONResponse(answer, 202, {"location": address})
    return RedirectResponse(address, status_code=303)


async def _read(request: Request) -> RunRequest:
    """Return the fields of a form or a JSON object; raises `BadInput`."""
    try:
        if request.headers.get("content-type", "").startswith("application/json"):
            fields = RunRequest.model_validate_json(await request.body())
        else:
            form = await request.form(max_files=0, max_fields=MOST_FIELDS)
            fields = RunRequest.model_validate(dict(form))
    except ValidationError as error:
        raise BadInput(complaint(error)) from error
    if fields.profile is not None:
        require_profile(fields.profile)
    return fields
