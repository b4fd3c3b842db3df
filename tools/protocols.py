"""Check of parts that a program hands over, against the protocols, before anything is spent.

Members are looked up without reading properties, which may load a model. Not covered: what a method returns.
"""

from __future__ import annotations

import inspect
from typing import Any

from pleinair.tools.types import BadInput, Capabilities

_METHODS: dict[str, dict[str, tuple[str, ...]]] = {  # with the parameters that are passed by position
    "generator": {"generate": ("request", "images", "on_step")},
    "retriever": {"search": ("query", "k"), "open": ("id",), "entries": ()},
    "scorer": {"score": ("texts", "ids")},
    "store": {"put": ("image",), "read": ("picture",), "open": ("picture",), "path": ("picture",)},
}
_PROTOCOLS = {
    "generator": "Generator of pleinair.tools.types: capabilities and generate(request, images, on_step)",
    "retriever": "Retriever of pleinair.tools.types: search(query, k), open(id) and entries()",
    "scorer": "Scorer of pleinair.tools.types: score(texts, ids)",
    "store": "pleinair.tools.storage.artifacts.ArtifactStore",
    "model": "LangChain chat model (BaseChatModel) with `bind_tools` or `with_structured_output`",
}
_MISSING = object()


def check_part(name: str, part: object, *, place: str = "context.", also: str = "") -> None:
    """Raise `BadInput` for a part, by default of a context, that does not follow its protocol.

    Args:
        name: generator, retriever, paper_retriever, scorer, store or model.
        part: an instance; its methods are not called.
        place: where it was handed over, for the message.
        also: what else is accepted, for the message.
    """
    kind = name.removeprefix("paper_")
    fault = f"{part.__name__} is a class; pass an instance" if isinstance(part, type) else ""
    fault = fault or (_model_fault(part) if kind == "model" else _fault(kind, part))
    if fault:
        raise BadInput(f"{place}{name}: {fault}; wanted a {_PROTOCOLS[kind]}{also}")


def _fault(name: str, part: object) -> str:
    for method, parameters in _METHODS[name].items():
        if fault := _method_fault(part, method, parameters):
            return fault
    return _capabilities_fault(part) if name == "generator" else ""


def _method_fault(part: object, method: str, parameters: tuple[str, ...]) -> str:
    kind = type(part).__name__
    function = _MISSING if _static(part, method) is _MISSING else getattr(part, method, _MISSING)
    if function is _MISSING:
        return f"{kind} has no method `{method}`"
    if not callable(function):
        return f"`{method}` of {kind} is no method"
    if inspect.iscoroutinefunction(function):
        return f"`{method}` of {kind} is asynchronous"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a compiled function
        return ""
    try:
        signature.bind(*parameters)
    except TypeError:
        return f"`{method}` of {kind} takes {signature} and is called with ({', '.join(parameters)})"
    return ""


def _capabilities_fault(part: object) -> str:
    value = _static(part, "capabilities")
    if value is _MISSING:
        return f"{type(part).__name__} has no `capabilities`"
    is_value = value is not None and not hasattr(type(value), "__get__")
    if is_value and not isinstance(value, Capabilities):
        return f"`capabilities` of {type(part).__name__} is a {type(value).__name__}, not a Capabilities"
    return ""


def _static(part: object, name: str) -> Any:
    """Return a member without evaluating it; None for one that `__getattr__` may supply."""
    value = inspect.getattr_static(part, name, _MISSING)
    return None if value is _MISSING and hasattr(type(part), "__getattr__") else value


def _model_fault(part: object) -> str:
    from langchain_core.language_models import BaseChatModel

    kind = type(part)
    if not isinstance(part, BaseChatModel):
        return f"{kind.__name__} is no chat model"
    inherits = [
        getattr(kind, name) is getattr(BaseChatModel, name)
        for name in ("bind_tools", "with_structured_output")
    ]
    return f"{kind.__name__} has no structured output" if all(inherits) else ""
