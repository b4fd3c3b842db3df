"""Errors in the form that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from pleinair.tools.arguments import complaint
from pleinair.tools.types import BadInput, PleinairError

PREFIX = "/v1"
INVALID = "invalid_request_error"
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
CODES = {
    400: "invalid_value",
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "request_too_large",
    415: "unsupported_media_type",
    421: "misdirected_request",
    429: "rate_limit_exceeded",
    500: "server_error",
    503: "server_unavailable",
}
_CODES = {  # by pydantic's type of an error
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "literal_error": "unsupported_value",
}


SERVED = (
    "POST /v1/images/generations, POST /v1/images/edits, GET /v1/images/{run_id}.{kind}, GET /v1/models, "
    "GET /v1/models/{name}"
)
PARAMS = {  # by the field of an error of the core
    "prompt": "prompt",
    "num_images": "n",
    "image.width": "size",
    "image.height": "size",
    "input_images": "image",
    "base": "image",
    "mask": "mask",
    "idempotency_key": "Idempotency-Key",
    "graph": "pleinair.graph",
    "seed": "pleinair.seed",
    "image.negative_prompt": "pleinair.negative_prompt",
    "image.reference_strength": "pleinair.reference_strength",
}


class ErrorBody(BaseModel):
    """What is wrong with a request, or how its run ended."""

    message: str
    type: str
    param: str | None = None  # the field that causes it
    code: str | None = None


class ErrorAnswer(BaseModel):
    """Answer to a request that fails."""

    error: ErrorBody

    @classmethod
    def of(cls, status: int, message: str, code: str | None = None, param: str | None = None) -> Self:
        """Build the answer of a status."""
        kind = TYPES.get(status, INVALID if status < 500 else "server_error")
        return cls(error=ErrorBody(message=message, type=kind, param=param, code=code or CODES.get(status)))


# of the routes, in their description
ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorAnswer}, "5XX": {"model": ErrorAnswer}}


class ApiFault(PleinairError):
    """Error with the code and the field that programs read, its HTTP status, and whether to try again."""

    def __init__(
        self,
        message: str,
        code: str,
        *,
        param: str | None = None,
        status: int = 400,
        remedy: str = "",
        retry: bool = True,
    ) -> None:
        super().__init__(message, remedy)
        self.code, self.param, self.status = code, param, status
        self.headers = {} if retry else {"x-should-retry": "false"}  # which OpenAI's clients obey

    @classmethod
    def of(cls, error: ValidationError, model: type[BaseModel]) -> Self:
        """Return the first error of a validation."""
        detail = error.errors(include_url=False)[0]
        code = _CODES.get(detail["type"], "invalid_value")
        return cls(complaint(error, model), code, param=".".join(map(str, detail["loc"])) or None)

    @property
    def answer(self) -> ErrorAnswer:
        """The answer that says it."""
        return ErrorAnswer.of(self.status, str(self), self.code, self.param)


def is_programmatic(path: str) -> bool:
    """Return whether an address is of this interface, so that no answer is a page."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def response_of(
    request: Request, error: Exception, status: int, message: str, headers: Mapping[str, str]
) -> Response:
    """Return the response to a request that fails; 422, which OpenAI has not, becomes 400."""
    status = 400 if status == 422 else status
    if isinstance(error, HTTPException) and status in (404, 405):
        message = f"{request.method} {request.url.path[:80]}: not served here. Accepted: {SERVED}."
    if isinstance(error, ApiFault):
        return json_response(error.answer, status, headers)
    param = PARAMS.get(error.field) if isinstance(error, BadInput) else None
    answer = ErrorAnswer.of(status, message, param=param)
    return json_response(answer, status, headers)


def json_response(body: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a model as JSON."""
    return Response(body.model_dump_json(), status, headers, "application/json")
