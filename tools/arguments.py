"""Arguments of a backend, checked against its signature before it is built.

Types and ranges are read from the annotations of the class or function, such as
`Annotated[int, Field(gt=0)]`, or from the pydantic model that it has as `settings_model`. A backend whose
arguments depend on each other also has a classmethod `declare(**arguments)`: it raises `BadInput`, loads
nothing and returns what is known without loading, which is the `Capabilities` of a generator. Not covered:
annotations that cannot be evaluated, or that pydantic has no schema for.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import ErrorDetails

from pleinair.tools import registry
from pleinair.tools.types import BadInput

_SECRET = re.compile(r"(^|[_-])(api_?key|key|secret|password|token)$", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_CREDENTIALS = re.compile(r"://[^/\s]*@")
_Model = TypeVar("_Model", bound=BaseModel)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def declare(kind: registry.Kind, name: str, arguments: Mapping[str, Any], table: str = "") -> Any:
    """Check arguments as `checked` does; return what the backend declares of itself, if anything."""
    declaration = getattr(checked(kind, name, arguments, table), "declare", None)
    return declaration(**arguments) if declaration else None


def checked(
    kind: registry.Kind, name: str, arguments: Mapping[str, Any], table: str = "", positional: int = 0
) -> Callable[..., Any]:
    """Return the class or function of the backend `name` after checking its arguments.

    Args:
        kind: what the backend is.
        name: its name in the registry.
        arguments: by name, as a settings file holds them.
        table: where they were set, for messages; the kind if empty.
        positional: parameters in front that the caller passes itself.

    Raises:
        BadInput: an unknown, missing or unusable argument, or a secret.
        BrokenPlugin: the backend cannot be imported.
    """
    table = table or kind
    if name not in (names := registry.names(kind)):
        choices, hint = ", ".join(names) or "none installed", registry.did_you_mean(name, names)
        raise BadInput(f"{table}.backend = {name!r}: unknown; accepted: {choices}.{hint}")
    make: Callable[..., Any] = registry.resolve(kind, name)
    check_leaves(arguments, table)
    if model := getattr(make, "settings_model", None):
        validated(model, arguments, table, f"{kind} {name!r}")
        return make
    parameters = inspect.signature(make).parameters
    accepted = [key for key, parameter in parameters.items() if parameter.kind in _NAMED][positional:]
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        _refuse_unknown(arguments, accepted, table, f"{kind} {name!r}")
    for key in accepted:
        if parameters[key].default is inspect.Parameter.empty and key not in arguments:
            raise BadInput(f"{table}.{key} is missing: {kind} {name!r} requires it")
    check_values(make, arguments, table)
    return make


def validated(model: type[_Model], arguments: Mapping[str, Any], table: str, backend: str) -> _Model:
    """Return arguments as the settings model of a backend; raise `BadInput`."""
    _refuse_unknown(arguments, list(model.model_fields), table, backend)
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        raise BadInput(f"{table}.{key} = {fault['input']!r}: {explain(fault)}") from error


def _refuse_unknown(arguments: Mapping[str, Any], accepted: Sequence[str], table: str, backend: str) -> None:
    for key, value in arguments.items():
        if key not in accepted:
            choices, hint = ", ".join(accepted) or "nothing", registry.did_you_mean(key, accepted)
            message = f"{backend} has no such argument; accepted: {choices}.{hint}"
            raise BadInput(f"{table}.{key} = {value!r}: {message}")


def check_values(make: Callable[..., Any], values: Mapping[str, Any], table: str) -> None:
    """Check values against the annotations of `make`; what JSON cannot hold is not checked.

    Raises `BadInput` that names the table, the key, the value and what is accepted.
    """
    for key, value in values.items():
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            check_leaves({key: value} if isinstance(value, float) else {}, table)
            continue
        try:
            if adapter := _adapter(make, key):
                adapter.validate_json(text, strict=True)
        except ValidationError as error:
            raise BadInput(f"{table}.{key} = {value!r}: {explain(error.errors()[0])}") from error


def explain(error: ErrorDetails, model: type[BaseModel] | None = None) -> str:
    """Return pydantic's message, or for an unknown key of `model` the keys that it accepts."""
    if error["type"] != "extra_forbidden" or model is None:
        return error["msg"][0].lower() + error["msg"][1:]
    *tables, key = map(str, error["loc"])
    for table in tables:
        inner = model.model_fields[table].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return "unknown key"
        model = inner
    accepted = list(model.model_fields)
    return f"unknown key; accepted: {', '.join(accepted)}.{registry.did_you_mean(key, accepted)}"


def check_leaves(tree: Mapping[str, Any], place: str = "") -> None:
    """Refuse values that no settings file may hold: secrets, numbers that are not finite, what JSON has not.

    A secret is known by its name or form; its value is not repeated. Raises `BadInput`.
    """
    for key, value in _leaves(tree, place):
        if _SECRET.search(key.rpartition(".")[2]):
            raise BadInput(
                f"{key}: secrets are not accepted in settings, which every sidecar repeats; set an "
                "environment variable such as OPENAI_API_KEY"
            )
        if isinstance(value, str) and _SURROGATE.search(value):
            raise BadInput(f"{key} = {value[:80]!r}: half a character; must be valid Unicode")
        if isinstance(value, str) and _CREDENTIALS.search(value):
            raise BadInput(f"{key}: passwords are not accepted in settings; remove it from the address")
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"{key} = {value}: must be a finite number")
        if not isinstance(value, str | int | float | None):
            raise BadInput(f"{key} = {value}: must be a text, a number, true, false, a list or a table")


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield each value of nested tables and lists with the dotted name of its table."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner, place)
    else:
        yield place, value


@cache
def _adapter(make: Callable[..., Any], key: str) -> TypeAdapter[Any] | None:
    annotations = _annotations(make)
    try:
        return TypeAdapter(annotations[key]) if key in annotations else None
    except (PydanticUserError, PydanticUndefinedAnnotation):
        return None  # a class that pydantic cannot check


@cache
def _annotations(make: Callable[..., Any]) -> dict[str, Any]:
    if isinstance(make, type) and issubclass(make, BaseModel):
        fields = make.model_fields.items()
        return {key: Annotated[field.annotation, *field.metadata, None] for key, field in fields}
    source: Any = (
        make if is_dataclass(make) or not isinstance(make, type) else getattr(make, "__init__", make)
    )
    try:
        return get_type_hints(source, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}  # names that exist for type checkers only
