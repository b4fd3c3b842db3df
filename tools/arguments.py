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
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import ErrorDetails

from pleinair.tools import registry
from pleinair.tools.types import BadInput

_SECRET = re.compile(r"(^|[_-])(api_?key|key|secret|password|token)$", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")
# a user of Postgres is no secret, but a token can be the user of any other URL
_CREDENTIALS = re.compile(r"://[^/\s]*:[^/\s]*@|(?<!postgresql)(?<!postgres)://[^/\s]*@")
_Model = TypeVar("_Model", bound=BaseModel)
_REQUIREMENTS = {  # by pydantic's type of the error, with the names of its context
    **dict.fromkeys(
        ("missing", "missing_argument", "missing_keyword_only_argument"), "required, but missing"
    ),
    **dict.fromkeys(("extra_forbidden", "unexpected_keyword_argument"), "unknown key"),
    **dict.fromkeys(("string_type", "string_unicode"), "must be a text"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), "must be a table"),
    **dict.fromkeys(("dataclass_type", "dataclass_exact_type"), "must be a table"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "iterable_type"), "must be a list"),
    **dict.fromkeys(("literal_error", "enum"), "must be {expected}"),
    **dict.fromkeys(("value_error", "assertion_error"), "{error}"),
    "int_parsing_size": "has too many digits",
    "none_required": "must be left out",
    "invalid_key": "must have texts as keys",
    "is_instance_of": "must be an instance of {class}",
    "callable_type": "must be a function",
    "finite_number": "must be a finite number",
    "multiple_of": "must be a multiple of {multiple_of}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "union_tag_not_found": "{discriminator} is required, but missing",
    "union_tag_invalid": "{discriminator} must be {expected_tags}",
    "json_invalid": "must be JSON: {error}",
}
_QUOTED = 80  # characters of a value in a message
_ONE = re.compile(r" 1 (item|character)s$")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def declare(kind: registry.Kind, name: str, arguments: Mapping[str, Any], table: str = "") -> Any:
    """Check arguments as `checked` does; return what the backend declares of itself, if anything."""
    declaration = getattr(checked(kind, name, arguments, table), "declare", None)
    return declaration(**arguments) if declaration else None


def checked(
    kind: registry.Kind,
    name: str,
    arguments: Mapping[str, Any],
    table: str = "",
    positional: int = 0,
    setting: str = "",
) -> Callable[..., Any]:
    """Return the class or function of the backend `name` after checking its arguments.

    Args:
        kind: what the backend is.
        name: its name in the registry.
        arguments: by name, as a settings file holds them.
        table: where they were set, for messages; the kind if empty.
        positional: parameters in front that the caller passes itself.
        setting: where the name was set, for messages; `backend` in the table if empty.

    Raises:
        BadInput: an unknown, missing or unusable argument, or a secret.
        BrokenPlugin: the backend cannot be imported.
    """
    table = table or kind
    if name not in (names := registry.names(kind)):
        choices, hint = ", ".join(names) or "none installed", registry.did_you_mean(name, names)
        raise BadInput(f"{setting or f'{table}.backend'} = {name!r}: unknown; accepted: {choices}.{hint}")
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
        raise BadInput(complaint(error, prefix=f"{table}.")) from error


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


def complaint(
    error: ValidationError, model: type[BaseModel] | None = None, prefix: str = "", most: int = 1
) -> str:
    """Return in one line the first errors of a validation: each key with its value and what is required.

    Args:
        error: of pydantic.
        model: what was validated, whose keys an unknown one is compared with.
        prefix: the name of the table that has the keys, with its dot.
        most: the number of errors in the line.
    """
    details = error.errors(include_url=False)[:most]
    return "; ".join(f"{prefix}{_assignment(detail)}: {explain(detail, model)}" for detail in details)


def _assignment(error: ErrorDetails) -> str:
    key = ".".join(map(str, error["loc"])) or "input"
    is_missing = error["type"].startswith("missing")
    return key if is_missing else f"{key} = {repr(error['input'])[:_QUOTED]}"


def explain(error: ErrorDetails, model: type[BaseModel] | None = None) -> str:
    """Return what pydantic requires of a value, or for an unknown key of `model` the keys that it accepts."""
    if error["type"] != "extra_forbidden" or model is None:
        return _requirement(error)
    *tables, key = map(str, error["loc"])
    for table in tables:
        inner = model_of(model.model_fields[table].annotation)
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return "unknown key"
        model = inner
    accepted = list(model.model_fields)
    return f"unknown key; accepted: {', '.join(accepted)}.{registry.did_you_mean(key, accepted)}"


def model_of(annotation: Any) -> Any:
    """Return the type of a table that may be left out, `T` of `T | None`; any other annotation as it is."""
    choices = [choice for choice in get_args(annotation) if choice is not NoneType]
    return choices[0] if isinstance(annotation, UnionType) and len(choices) == 1 else annotation


def _requirement(error: ErrorDetails) -> str:
    if template := _REQUIREMENTS.get(error["type"]):
        context = error.get("ctx", {}).items()
        values = {key: f"{value:g}" if isinstance(value, float) else value for key, value in context}
        return _ONE.sub(r" 1 \1", template.format_map(values))
    return error["msg"][0].lower() + error["msg"][1:]  # of a type that no argument has


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
