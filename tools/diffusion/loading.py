"""Open a model from a folder or the hub: a pinned commit, safetensors only, and no code from outside.

A hub model is first fetched as a snapshot of one commit, data files only, and then opened as a folder, so
that what was checked is what is loaded. Not covered: single-file checkpoints and quantised weights.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pleinair.tools.diffusion.families import Family
from pleinair.tools.diffusion.offload import is_out_of_memory
from pleinair.tools.locks import serialized
from pleinair.tools.model_files.hub import INDEX, Source, first_line
from pleinair.tools.model_files.integrity import find_part_faults
from pleinair.tools.model_files.variants import has_variant, pipeline_files
from pleinair.tools.types import BadInput

ADVICE = (
    "`pleinair models check` examines its files; `pleinair models pull` fetches those of a hub model again."
)
LIBRARIES = {"diffusers", "transformers", "stable_diffusion"}  # the last is diffusers' safety checker
DENOISERS = ("transformer", "unet")
NOISY = ("diffusers", "transformers")  # loggers that report a cut prompt in their own words, at each image


def require_class(folder: Path, pipeline: str, family: Family) -> dict[str, str]:
    """Return the parts as `read_index` does; raise `BadInput` if this class cannot open the folder."""
    class_name, parts = read_index(folder)
    if not family.can_open(pipeline, class_name):
        raise BadInput(
            f"{str(folder)!r} is a {class_name}, not a {pipeline}.", "Set generator.pipeline to its class."
        )
    return parts


def read_index(folder: Path) -> tuple[str, dict[str, str]]:
    """Return a pipeline's class, and its parts as name → class; raise `BadInput` for code from outside."""
    path = folder / INDEX
    if not path.is_file():
        raise BadInput(f"No diffusers pipeline in {str(folder)!r}: it has no {INDEX}.")
    try:
        index = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BadInput(f"{str(path)!r} is not JSON: {error}") from error
    class_name = index.get("_class_name")
    rows = {key: row for key, row in index.items() if isinstance(row, list) and not key.startswith("_")}
    parts = {key: row for key, row in rows.items() if row and row[0] is not None}
    foreign = [f"{key} from {library!r}" for key, (library, *_) in parts.items() if library not in LIBRARIES]
    if not isinstance(class_name, str) or foreign or any(folder.rglob("*.py")):
        what = "; ".join(foreign) or "a class or a file of its own"
        raise BadInput(f"{str(folder)!r} contains its own code ({what}): no code from a model is run.")
    return class_name, {key: str(row[-1]) for key, row in parts.items()}


def fetch_pipeline(source: Source, pipeline: str, family: Family, variant: str = "") -> Path:
    """Return a folder with a pipeline's index and the data files of its parts.

    Raises `NotDownloaded`, and `BadInput` for another class, and for files that are missing or truncated.
    """
    parts = require_class(source.require_files((INDEX,)), pipeline, family)

    def find_faults(folder: Path) -> list[str]:
        return [fault for part in parts for fault in find_part_faults(folder / part, part, variant)]

    folder = source.require_files(
        *pipeline_files(parts, variant, source.names() if variant else ()), find_faults
    )
    if faults := find_faults(folder):
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise BadInput(f"{str(folder)!r} cannot be loaded: {faults[0]}{more}.", ADVICE)
    return folder


@serialized
def open_pipeline(folder: Path, pipeline: str, dtype: Any, variant: str = "", **parts: Any) -> Any:
    """Load a pipeline on the CPU from local safetensors, without its progress bar.

    `parts` are loaded ones that the folder lacks. Raises `BadInput` if a file is missing or not safetensors.
    """
    with _loading_errors(folder):
        loaded = _from_pretrained(pipeline, folder, dtype, variant, **parts)
        for name, part in loaded.components.items():
            if hasattr(part, "parameters") and any(weight.is_meta for weight in part.parameters()):
                raise BadInput(f"{name} has fewer weights than its config demands.")
    loaded.set_progress_bar_config(disable=True)
    return loaded


@serialized
def open_part(folder: Path, class_name: str, dtype: Any, variant: str = "") -> Any:
    """Load one model of a class of diffusers from a folder of its own, as `open_pipeline` does."""
    with _loading_errors(folder):
        names = [path.name for path in folder.iterdir()]
        return _from_pretrained(class_name, folder, dtype, variant if has_variant(names, variant) else "")


def _from_pretrained(class_name: str, folder: Path, dtype: Any, variant: str, **others: Any) -> Any:
    import diffusers

    if variant:
        others["variant"] = variant
    return getattr(diffusers, class_name).from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, **others
    )


@contextmanager
def _loading_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each library has its own for a file that does not fit
        raise loading_error(folder, error) from error


def loading_error(folder: Path, error: Exception) -> Exception:
    """Convert a library's error for a model that it cannot load into `BadInput`; keep a lack of memory."""
    if is_out_of_memory(error):
        return error
    return BadInput(f"{str(folder)!r} cannot be loaded: {first_line(error)}", ADVICE)


def select_options(variant: Any, pipeline: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the call of a pipeline's variant, made by `convert_pipeline`, accepts.

    Raises `BadInput` for one that the pipeline itself does not have.
    """
    accepted, declared = (inspect.signature(type(form).__call__).parameters for form in (variant, pipeline))
    if unknown := [name for name in options if name not in declared]:
        raise BadInput(f"generator.options.{unknown[0]}: {type(pipeline).__name__} has no such argument")
    return {name: value for name, value in options.items() if name in accepted}


@serialized
def convert_pipeline(pipeline: Any, class_name: str) -> Any:
    """Build a pipeline of another class from the parts of a loaded one; nothing is loaded twice."""
    import diffusers

    target = getattr(diffusers, class_name)
    parameters = inspect.signature(target.__init__).parameters
    parts = {name: part for name, part in pipeline.components.items() if name in parameters}
    flags = {
        name: pipeline.config[name] for name in parameters if name not in parts and name in pipeline.config
    }
    converted = target(**parts, **flags)
    converted.set_progress_bar_config(disable=True)
    return converted


@serialized
def check_attention_backend(name: str) -> None:
    """Raise `BadInput` for a backend that diffusers does not know or this machine lacks; "" is none."""
    if not name:
        return
    if "hub" in name:
        raise BadInput(f"{_key(name)}: would load code")
    from diffusers.models.attention_dispatch import (
        AttentionBackendName,
        _check_attention_backend_requirements,
    )

    names = sorted(backend.value for backend in AttentionBackendName if "hub" not in backend.value)
    if name not in names:
        raise BadInput(f"{_key(name)}: unknown; wanted one of: {', '.join(names)}")
    try:
        _check_attention_backend_requirements(AttentionBackendName(name))
    except RuntimeError as error:
        raise BadInput(f"{_key(name)}: {first_line(error)}") from error


def set_attention_backend(denoiser: Any, name: str) -> None:
    """Let a denoiser's attention run on a backend; raise `BadInput` if none of its layers accepts one."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    process_default = _AttentionBackendRegistry._active_backend
    denoiser.set_attention_backend(name)
    _AttentionBackendRegistry.set_active_backend(process_default)  # other models of this process keep theirs
    backend = AttentionBackendName(name)
    processors = (getattr(module, "processor", None) for module in denoiser.modules())
    if not any(getattr(processor, "_attention_backend", None) == backend for processor in processors):
        raise BadInput(f"{_key(name)}: {type(denoiser).__name__} has no attention that accepts a backend")


def _key(name: str) -> str:
    return f"generator.attention_backend = {name!r}"


@serialized
def check_compilable(folder: Path) -> None:
    """Raise `BadInput` for a pipeline, read from its index, whose denoiser has no repeated blocks."""
    import diffusers

    _, parts = read_index(folder)
    for part in DENOISERS:
        if part in parts and not getattr(getattr(diffusers, parts[part], None), "_repeated_blocks", None):
            raise BadInput(
                f"generator.compile = true: the {part}'s class {parts[part]} has no blocks to compile"
            )


@contextmanager
def library_warnings_off() -> Iterator[None]:
    """Let the model libraries log errors only within the block."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
