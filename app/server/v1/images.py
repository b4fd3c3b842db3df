"""Images as OpenAI's clients request them: queued like all runs, answered when they have ended."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar, get_args

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json

from pleinair.app import api
from pleinair.app.runs.request import DIRECT
from pleinair.app.runs.row import Run
from pleinair.app.server.clients import client_of
from pleinair.app.server.feed import streamed
from pleinair.app.server.requests import IdempotencyKey
from pleinair.app.server.site import IMMUTABLE, Site, site_of
from pleinair.app.server.v1.answers import Answer, Kind, converted, image_of, without_image
from pleinair.app.server.v1.errors import ERRORS, ApiFault, json_response
from pleinair.app.server.v1.files import PARTS, Files, of_form, of_json
from pleinair.app.server.v1.schemas import (
    BEST,
    Compression,
    EditRequest,
    Format,
    ImageRequest,
    ImagesAnswer,
)
from pleinair.app.trace.view import view_of

JSON = "application/json"
KEY = TypeAdapter(IdempotencyKey)
router = APIRouter(responses=ERRORS)


_Fields = TypeVar("_Fields", bound=ImageRequest)


def _described(model: type[BaseModel], parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the description of a route whose body is read by itself, without references.

    Args:
        model: of the fields.
        parts: further fields, by the content types that the route takes; the first of each is required.
    """
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    for value in schema["properties"].values():
        if reference := value.pop("$ref", ""):
            value |= definitions[reference.rpartition("/")[2]]
    bodies = {}
    for kind, fields in parts.items():
        required = [*schema["required"], *list(fields)[:1]]
        fields = schema | {"properties": schema["properties"] | fields, "required": required}
        bodies[kind] = {"schema": fields}
    key = {"name": "Idempotency-Key", "in": "header", "schema": KEY.json_schema()}
    return {"requestBody": {"required": True, "content": bodies}, "parameters": [key]}


EVENT = {  # of a stream; `data` is the JSON of a preview, an image or an error
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ImagesAnswer,
        "content": {"text/event-stream": {"schema": EVENT}},
    },
}


FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {f"image/{kind}": {} for kind in get_args(Format)}}
}


@router.post(
    "/v1/images/generations",
    responses=ANSWERS,
    openapi_extra=_described(ImageRequest, {JSON: {}}),
)
async def generate(request: Request) -> Response:
    """Generate images for a prompt."""
    _require_type(request, JSON)
    fields = _validated(ImageRequest, _object(await request.body()))
    return await _answered(request, fields, Files(), "image_generation")


@router.post(
    "/v1/images/edits",
    responses=ANSWERS,
    openapi_extra=_described(EditRequest, PARTS),
)
async def edit(request: Request) -> Response:
    """Generate images with the input images as first references, in order.

    With a mask the first one is generated again where the mask is transparent, and the others are references.
    """
    kind = _require_type(request, *PARTS)
    values, files = of_json(_object(await request.body())) if kind == JSON else await of_form(request)
    return await _answered(request, _validated(EditRequest, values), files, "image_edit")


@router.get("/v1/images/{run_id}.{kind}", response_class=Response, responses=FILES)
def image(request: Request, run_id: str, kind: Format, compression: Compression = BEST) -> Response:
    """Send the best image of a run that has ended."""
    site = site_of(request)
    view = view_of(site.runs.get(run_id), site.places)
    if not view.has_ended:
        raise ApiFault(f"run {run_id}: {view.status}, so it has no image yet", view.status, status=404)
    data = image_of(site, view)
    if data is None:
        raise without_image(view)
    return Response(converted(data, kind, compression), media_type=f"image/{kind}", headers=IMMUTABLE)


def _require_type(request: Request, *accepted: str) -> str:
    """Return the content type of a request; raises `ApiFault` for one that is not accepted."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in accepted:
        return kind
    message = f"Content-Type = {kind[:60]!r}: must be {' or '.join(accepted)}"
    raise ApiFault(message, "unsupported_media_type", param="Content-Type", status=415)


def _object(body: bytes) -> dict[str, Any]:
    """Return a JSON object; raises `ApiFault`."""
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiFault(f"body: must be JSON: {error}", "invalid_value") from error
    if not isinstance(values, dict):
        raise ApiFault("body: must be a JSON object", "invalid_value")
    return values


def _validated(model: type[_Fields], values: dict[str, Any]) -> _Fields:
    """Return the fields of a request; raises `ApiFault`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ApiFault.of(error, model) from error


async def _answered(request: Request, fields: ImageRequest, files: Files, kind: Kind) -> Response:
    """Queue the runs and answer when they have ended, or stream what becomes of them."""
    site, key = site_of(request), _key_of(request)
    runs = await run_in_threadpool(_queued, site, client_of(request), fields, files, key)
    request.app.state.workers.look()
    answer = Answer(site, fields, runs, kind, partial(_address, request), key is not None)
    headers = {"x-request-id": runs[0].id}
    if fields.stream:
        response = streamed(answer.events())
        response.headers.update(headers)
        return response
    if not await answer.has_ended(request):
        return Response(status_code=204)  # to nobody
    return await run_in_threadpool(lambda: json_response(answer.images(), headers=headers))


def _queued(site: Site, client: str, fields: ImageRequest, files: Files, key: str | None) -> list[Run]:
    options = fields.options() | {"idempotency_key": key}
    images = files.images
    if files.mask is not None:
        base, *images = images
        options |= {"graph": fields.pleinair.graph or DIRECT, "base": base, "mask": files.mask}
    if images:
        options["input_images"] = images
    return api.enqueue(fields.prompt, client=client, most=site.options.queue, num_images=fields.n, **options)


def _key_of(request: Request) -> str | None:
    keys = [key for key in request.headers.getlist("idempotency-key") if key]
    try:
        return KEY.validate_python(",".join(keys)) if keys else None
    except ValidationError as error:
        message = "Idempotency-Key: must be at most 200 printable ASCII characters, without #"
        raise ApiFault(message, "invalid_value", param="Idempotency-Key") from error


def _address(request: Request, path: str) -> str:
    """Return the address of a path as the client has it, to pass on; a proxy may have taken HTTPS off."""
    scheme = "https" if request.headers.get("x-forwarded-proto") == "https" else request.url.scheme
    return f"{scheme}://{request.headers['host']}{request.app.state.rules.link(path)}"
