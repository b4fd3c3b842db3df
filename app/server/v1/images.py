"""Images as OpenAI's clients request them: queued like all runs, answered when they have ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.datastructures import UploadFile

from pleinair.app import api
from pleinair.app.runs.request import DIRECT
from pleinair.app.runs.store import Run
from pleinair.app.server.clients import client_of
from pleinair.app.server.feed import streamed
from pleinair.app.server.requests import IdempotencyKey
from pleinair.app.server.site import Site, site_of
from pleinair.app.server.v1.answers import Answer, Kind
from pleinair.app.server.v1.errors import ERRORS, ApiFault, json_response
from pleinair.app.server.v1.schemas import EditRequest, ImageRequest, ImagesAnswer

IMAGES = ("image", "image[]")  # parts of a form
IGNORED = ("user", "safety_identifier", "moderation", "metadata")  # may have keys in brackets
MOST_FILES, MOST_FIELDS = 64, 64
KEY = TypeAdapter(IdempotencyKey)
router = APIRouter(responses=ERRORS)


@dataclass
class _Files:
    """Files of a request: input images in order, and which part of the first one changes."""

    images: list[bytes] = field(default_factory=list)
    mask: bytes | None = None


_Fields = TypeVar("_Fields", bound=ImageRequest)


def _described(kind: str, model: type[BaseModel], files: bool = False) -> dict[str, Any]:
    """Return the description of a route whose body is read by itself, without references."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})
    for value in schema["properties"].values():
        if reference := value.pop("$ref", ""):
            value |= parts[reference.rpartition("/")[2]]
    if files:
        file = {"type": "string", "format": "binary"}
        schema["properties"]["image"] = {"type": "array", "items": file, "minItems": 1, "maxItems": 16}
        schema["properties"]["mask"] = file
        schema["required"].append("image")
    key = {"name": "Idempotency-Key", "in": "header", "schema": KEY.json_schema()}
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}, "parameters": [key]}


ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ImagesAnswer,
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
}


@router.post(
    "/v1/images/generations",
    responses=ANSWERS,
    openapi_extra=_described("application/json", ImageRequest),
)
async def generate(request: Request) -> Response:
    """Generate images for a prompt."""
    if _content_type(request) != "application/json":
        raise ApiFault("the body must be application/json", "unsupported_media_type", status=415)
    fields = _validated(ImageRequest, _object(await request.body()))
    return await _answered(request, fields, _Files(), "image_generation")


@router.post(
    "/v1/images/edits",
    responses=ANSWERS,
    openapi_extra=_described("multipart/form-data", EditRequest, files=True),
)
async def edit(request: Request) -> Response:
    """Generate images with the input images as first references, in order.

    With a mask the first one is generated again where the mask is transparent, and the others are references.
    """
    if _content_type(request) != "multipart/form-data":
        raise _not_a_form(_object(await request.body()))
    values, files = await _read(request)
    return await _answered(request, _validated(EditRequest, values), files, "image_edit")


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


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


def _not_a_form(values: dict[str, Any]) -> ApiFault:
    """Return the error of an edit that is no form, with the field of its images."""
    param = next((name for name in ("images", "image", "mask") if name in values), None)
    return ApiFault(
        f"{param or 'body'}: nothing is retrieved from an address; images must come with the request",
        "unsupported_value",
        param=param,
        remedy="Send multipart/form-data with a part `image` for each image.",
    )


async def _read(request: Request) -> tuple[dict[str, Any], _Files]:
    """Return the fields of a form, and its files; raises `ApiFault`."""
    values: dict[str, Any] = {}
    files = _Files()
    async with request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) and name in IMAGES:
                files.images.append(await value.read())
            elif isinstance(value, UploadFile) and name == "mask" and files.mask is None:
                files.mask = await value.read()
            elif isinstance(value, UploadFile) or name in (*IMAGES, "mask"):
                raise _misplaced(name)
            elif value:  # an empty field counts as omitted
                _set(values, name, value)
    if not files.images:
        raise ApiFault("image: required, but missing", "missing_required_parameter", param="image")
    return values, files


def _misplaced(name: str) -> ApiFault:
    if name in (*IMAGES, "mask"):
        fault = "must be one file" if name == "mask" else "must be a file"
        return ApiFault(f"{name}: {fault}", "invalid_value", param=name.removesuffix("[]"))
    return ApiFault(f"{name[:60]}: no such file is used", "unknown_parameter", param=name)


def _set(values: dict[str, Any], name: str, value: str) -> None:
    """Set a field of a form, or a key of one, such as `pleinair[seed]`."""
    table, bracket, key = name.partition("[")
    if table in IGNORED:
        return
    if name == "pleinair":
        try:
            values["pleinair"] = from_json(value)
        except ValueError as error:
            raise ApiFault("pleinair: must be a JSON object", "invalid_value", param="pleinair") from error
    elif table == "pleinair" and bracket and isinstance(values.setdefault(table, {}), dict):
        values[table][key.removesuffix("]")] = value
    else:
        values[name] = value


async def _answered(request: Request, fields: ImageRequest, files: _Files, kind: Kind) -> Response:
    """Queue the runs and answer when they have ended, or stream what becomes of them."""
    site, key = site_of(request), _key_of(request)
    runs = await run_in_threadpool(_queued, site, client_of(request), fields, files, key)
    request.app.state.workers.look()
    answer = Answer(site, fields, runs, kind, _base_of(request), key is not None)
    headers = {"x-request-id": runs[0].id}
    if fields.stream:
        response = streamed(answer.events())
        response.headers.update(headers)
        return response
    if not await answer.has_ended(request):
        return Response(status_code=204)  # to nobody
    return await run_in_threadpool(lambda: json_response(answer.images(), headers=headers))


def _queued(site: Site, client: str, fields: ImageRequest, files: _Files, key: str | None) -> list[Run]:
    options = fields.options() | {"idempotency_key": key}
    images = files.images
    if files.mask is not None:
        base, *images = images
        options |= {"graph": fields.pleinair.graph or DIRECT, "base": base, "mask": files.mask}
    if images:
        options["input_images"] = images
    return api.enqueue(fields.prompt, client=client, most=site.options.queue, num_images=fields.n, **options)


def _key_of(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    try:
        return KEY.validate_python(key) if key else None
    except ValidationError as error:
        message = "Idempotency-Key: must be at most 200 printable ASCII characters, without #"
        raise ApiFault(message, "invalid_value", param="Idempotency-Key") from error


def _base_of(request: Request) -> str:
    """Return the address of this server as the client has it; a proxy may have taken HTTPS off."""
    scheme = "https" if request.headers.get("x-forwarded-proto") == "https" else request.url.scheme
    return f"{scheme}://{request.headers['host']}"
