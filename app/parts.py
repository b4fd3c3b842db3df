"""Parts of a run that a Python program hands over as objects: a chat model, a generator, a retriever.

The settings of such a run have the backend `program` with the class of the object, and its model if it has
one, so that rows and sidecars tell what generated an image. The objects are stored nowhere: they are handed
over again to go on with a run. A pipeline of diffusers is called by the engine of its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, cast

from pydantic import ValidationError

from pleinair.app.settings import BackendChoice, Settings
from pleinair.app.toml.trees import Tree, nested
from pleinair.tools.arguments import declare
from pleinair.tools.protocols import check_part
from pleinair.tools.registry import Kind
from pleinair.tools.types import BadInput, Capabilities

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from langchain_core.language_models import BaseChatModel

    from pleinair.tools.types import Generator, Retriever

PROGRAM = "program"  # name of the backend, and of the retrieval method
_TABLES = {"model": "mllm", "generator": "generator", "retriever": "retrieval"}  # of the settings, by part
_FACTS = ("class", "model", "capabilities")  # arguments of the backend that no override sets
_MODEL_NAMES = ("model_name", "model", "model_id", "name_or_path")  # attributes that may have a model's name


class OwnParts(TypedDict, total=False):
    """Objects of the calling program in place of backends; None: those of the settings."""

    model: BaseChatModel | None  # for every MLLM call
    generator: Generator | DiffusionPipeline | None  # of the images
    retriever: Retriever | None  # of the references


@dataclass(frozen=True)
class Parts:
    """Checked parts of a run, a pipeline as a generator; None: those of the settings."""

    model: BaseChatModel | None = None
    generator: Generator | None = None
    retriever: Retriever | None = None


NO_PARTS = Parts()


def split_parts(options: Mapping[str, Any]) -> OwnParts:
    """Return the parts among the options of a call."""
    return cast(OwnParts, {name: options[name] for name in _TABLES if options.get(name) is not None})


def with_parts(settings: Settings, parts: OwnParts, overrides: Mapping[str, Any]) -> Settings:
    """Return settings that have these parts; `overrides` may set how a pipeline is called.

    Raises:
        BadInput: an object is no such part, or an override sets what the object replaces.
    """
    tree = nested(overrides)
    for name, part in split_parts(parts).items():
        _check(name, part)
        table = tree.get(_TABLES[name])
        explicit = dict(table) if isinstance(table, Mapping) else {}
        if name == "retriever":
            _refuse(name, "retrieval", [key for key in ("method", "arguments", "second") if key in explicit])
            method = {"method": PROGRAM, "arguments": _facts(part), "second": None}
            changed: Any = settings.retrieval.model_copy(update=method)
        else:
            arguments = _further_arguments(settings, name, part) | explicit
            changed = _choice(name, part, arguments)
        settings = settings.model_copy(update={_TABLES[name]: changed})
    return settings


def declared(kind: Kind, choice: BackendChoice, table: str = "") -> Any:
    """Return what a backend declares of itself, as `declare` does; what a part declared is in its table."""
    if choice.backend != PROGRAM or kind == "encoder":
        return declare(kind, choice.backend, choice.arguments, table)
    try:
        return Capabilities.model_validate(choice.arguments["capabilities"]) if kind == "generator" else None
    except (KeyError, ValidationError):
        raise _missing(f"{kind}.backend = {PROGRAM!r}", kind, choice.arguments) from None


def has_parts(settings: Settings) -> bool:
    """Return whether a program has to hand over parts for a run with these settings."""
    return bool(_tables(settings))


def require_parts(settings: Settings, parts: OwnParts, run: str = "this run") -> Parts:
    """Return the parts that a run with these settings needs; none for one of backends alone.

    Args:
        settings: of the run, which say what it needs.
        parts: what the program has handed over.
        run: the run, for messages.

    Raises:
        BadInput: a part is missing, of another kind than the run's, or not used by it.
    """
    tables, parts = _tables(settings), split_parts(parts)
    if unused := [name for name in parts if name not in tables]:
        choice = getattr(settings, _TABLES[unused[0]])
        label = choice.label if isinstance(choice, BackendChoice) else choice.method
        raise BadInput(
            f"{unused[0]}: {run} was started with `{label}`, by its name", "Go on without the object."
        )
    for name, table in tables.items():
        part = cast(Any, parts.get(name))
        if part is None:
            raise _missing(run, name, table)
        _check(name, part)
        if (facts := _facts(part)) != {key: table[key] for key in ("class", "model") if key in table}:
            raise BadInput(
                f"{name}: {_label(facts)}; {run} was started with {_label(table)}",
                "Hand over an object of the same kind, or fork the run.",
            )
    checked: dict[str, Any] = dict(parts)
    if _is_pipeline(parts.get("generator")):
        checked["generator"] = _wrapped(parts.get("generator"), _call_settings(tables["generator"]))
    return Parts(**checked)


def _tables(settings: Settings) -> dict[str, Tree]:
    """Return the arguments of each part that a program hands over."""
    choices = {"model": settings.mllm, "generator": settings.generator}
    tables = {name: choice.arguments for name, choice in choices.items() if choice.backend == PROGRAM}
    return tables | ({"retriever": settings.retrieval.arguments} if has_own_retriever(settings) else {})


def has_own_retriever(settings: Settings) -> bool:
    """Return whether a program hands over the retriever."""
    return settings.retrieval.method == PROGRAM


def _choice(name: str, part: Any, arguments: Tree) -> BackendChoice:
    facts: Tree = dict(_facts(part))
    if _is_pipeline(part):
        facts |= {**arguments, "capabilities": _wrapped(part, arguments).capabilities.model_dump(mode="json")}
    else:
        _refuse(name, _TABLES[name], list(arguments))
        if name == "generator":
            facts["capabilities"] = _capabilities(part).model_dump(mode="json")
    return BackendChoice(backend=PROGRAM, **facts)


def _further_arguments(settings: Settings, name: str, part: object) -> Tree:
    """Return how a stored run calls its pipeline, for another one of the same class."""
    choice: BackendChoice = getattr(settings, _TABLES[name])
    is_same = choice.backend == PROGRAM and choice.arguments.get("class") == _facts(part)["class"]
    return _call_settings(choice.arguments) if is_same else {}


def _call_settings(table: Tree) -> Tree:
    return {key: value for key, value in table.items() if key not in _FACTS}


def _capabilities(generator: Generator) -> Capabilities:
    value = generator.capabilities
    if isinstance(value, Capabilities):
        return value
    raise BadInput(
        f"generator: `capabilities` of {type(generator).__name__} is a {type(value).__name__}; wanted a "
        "Capabilities of pleinair.tools.types"
    )


def _refuse(name: str, table: str, keys: list[str]) -> None:
    if keys:
        raise BadInput(f"{table}.{keys[0]}: set beside {name}=…, an object that replaces it", "Set one only.")


def _check(name: str, part: Any) -> None:
    if name == "generator" and _is_pipeline(part):
        from pleinair.tools.diffusion.loaded import find_engine

        find_engine(part)
    else:
        check_part(name, part, place="", also=", or a loaded pipeline of diffusers" * (name == "generator"))


def _is_pipeline(part: object) -> bool:
    """Return whether an object is a pipeline, by the names of its classes: diffusers takes long to import."""
    return any(
        kind.__name__ == "DiffusionPipeline" and kind.__module__.startswith("diffusers.")
        for kind in type(part).__mro__
    )


def _wrapped(pipeline: Any, arguments: Tree) -> Generator:
    from pleinair.tools.diffusion.loaded import wrap

    return wrap(pipeline, arguments)


def _facts(part: object) -> dict[str, str]:
    """Return the class of an object, and its model if it has one."""
    names = [getattr(part, name, None) for name in _MODEL_NAMES]
    model = next((name for name in names if name and isinstance(name, str)), "")
    return {"class": type(part).__qualname__} | ({"model": model} if model else {})


def _label(table: Mapping[str, Any]) -> str:
    return " ".join(str(table[key]) for key in ("class", "model") if table.get(key)) or "an object"


def _missing(run: str, name: str, table: Tree) -> BadInput:
    return BadInput(
        f"{run}: its {name} is an object of the Python program that started it ({_label(table)})",
        f"A program goes on with it and hands over {name}=… again, to `resume`, `finish` or `fork`.",
    )
