"""Open a model from a folder or the hub: a pinned commit, safetensors only, and no code from outside.

A hub model is first fetched as a snapshot of one commit, data files only, and then opened as a folder, so
that what was checked is what is loaded. Not covered: single-file checkpoints and quantised weights.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pleinair.tools.diffusion.offload import is_out_of_memory
from pleinair.tools.locks import serialized
from pleinair.tools.model_files.folders import locate
from pleinair.tools.model_files.hub import INDEX, Source, first_line
from pleinair.tools.model_files.integrity import of_part
from pleinair.tools.model_files.variants import has, pipeline_files
from pleinair.tools.types import BadInput

MEND = "`pleinair models check` looks at its files; `pleinair models pull` fetches one of the hub again."
LIBRARIES = {"diffusers", "transformers", "stable_diffusion"}  # the last is diffusers' safety checker


def check_class(source: Source, pipeline: str, opens: Any) -> None:
    """Refuse a local folder of another class; `opens(pipeline, found)` tells which ones are well."""
    if source.folder:
        require_class(locate(source.folder), pipeline, opens)


def require_class(folder: Path, pipeline: str, opens: Any) -> dict[str, str]:
    """Read the parts of a pipeline folder by name, or raise `BadInput` where it is not of this class."""
    found, parts = read_index(folder)
    if not opens(pipeline, found):
        raise BadInput(
            f"{str(folder)!r} is a {found}, not a {pipeline}.", "Set generator.pipeline to its class."
        )
    return parts


def read_index(folder: Path) -> tuple[str, dict[str, str]]:
    """Read a pipeline's class, and its parts as name → library; raise `BadInput` for code from outside."""
    path = folder / INDEX
    if not path.is_file():
        raise BadInput(f"No diffusers pipeline in {str(folder)!r}: it has no {INDEX}.")
    try:
        index = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BadInput(f"{str(path)!r} is no JSON: {error}") from error
    name = index.get("_class_name")
    rows = {key: value for key, value in index.items() if isinstance(value, list) and not key.startswith("_")}
    parts = {key: value[0] for key, value in rows.items() if value and value[0] is not None}
    foreign = [f"{key} from {library!r}" for key, library in parts.items() if library not in LIBRARIES]
    if not isinstance(name, str) or foreign or any(folder.rglob("*.py")):
        what = "; ".join(foreign) or "a class or a file of its own"
        raise BadInput(f"{str(folder)!r} brings its own code ({what}): no code from a model is run here.")
    return name, parts


def _read_classes(folder: Path) -> dict[str, str]:
    """Read the classes of a pipeline's parts by name, after the checks of `read_index`."""
    _, parts = read_index(folder)
    index = json.loads((folder / INDEX).read_text("utf-8"))
    return {part: str(index[part][1]) for part in parts}


def fetch_pipeline(source: Source, pipeline: str, opens: Any, variant: str = "") -> Path:
    """Give a folder with a pipeline's index and the data files of its parts, checked before the weights.

    Raises `BadInput` for another class, and where files are missing or cut off.
    """
    parts = require_class(source.fetch((INDEX,)), pipeline, opens)

    def faults(folder: Path) -> list[str]:
        return [fault for part in parts for fault in of_part(folder / part, part, variant)]

    folder = source.fetch(*pipeline_files(parts, variant, source.names() if variant else ()), faults)
    if found := faults(folder):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise BadInput(f"{str(folder)!r} cannot be loaded: {found[0]}{more}.", MEND)
    return folder


@serialized
def open_pipeline(folder: Path, pipeline: str, dtype: Any, variant: str = "", **parts: Any) -> Any:
    """Load a pipeline on the CPU from local safetensors, without its progress bar.

    `parts` are ready-made ones that the folder lacks. Raises `BadInput` where a file is missing or no
    safetensors.
    """
    import diffusers

    kind = getattr(diffusers, pipeline)
    given = {**parts, **({"variant": variant} if variant else {})}
    try:
        opened = kind.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, **given
        )
        for name, part in opened.components.items():
            if hasattr(part, "parameters") and any(weight.is_meta for weight in part.parameters()):
                raise BadInput(f"{name} has fewer weights than its config wants.")
    except Exception as error:  # each library has its own for a file that does not fit
        raise unloadable(folder, error) from error
    opened.set_progress_bar_config(disable=True)
    return opened


@serialized
def open_part(folder: Path, kind: str, dtype: Any, variant: str = "") -> Any:
    """Load one model of a class of diffusers from a folder of its own, as `open_pipeline` does."""
    import diffusers

    given = {"variant": variant} if variant and has((path.name for path in folder.iterdir()), variant) else {}
    try:
        return getattr(diffusers, kind).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, **given
        )
    except Exception as error:  # each library has its own for a file that does not fit
        raise unloadable(folder, error) from error


def unloadable(folder: Path, error: Exception) -> Exception:
    """Turn what a library says of a model that it cannot load into ours; a lack of memory stays itself."""
    if is_out_of_memory(error):
        return error
    return BadInput(f"{str(folder)!r} cannot be loaded: {first_line(error)}", MEND)


def options_of(form: Any, pipeline: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Give the options that a form's call has; raise `BadInput` for one that the class itself has not."""
    here, known = (inspect.signature(type(one).__call__).parameters for one in (form, pipeline))
    if unknown := [name for name in options if name not in known]:
        raise BadInput(f"generator.options.{unknown[0]}: {type(pipeline).__name__} has no such argument")
    return {name: value for name, value in options.items() if name in here}


@serialized
def plain_form(pipeline: Any, plain: str) -> Any:
    """Make a pipeline of class `plain` from the parts of another one; nothing is loaded twice."""
    import diffusers

    kind = getattr(diffusers, plain)
    wanted = inspect.signature(kind.__init__).parameters
    parts = {name: part for name, part in pipeline.components.items() if name in wanted}
    flags = {name: pipeline.config[name] for name in wanted if name not in parts and name in pipeline.config}
    made = kind(**parts, **flags)
    made.set_progress_bar_config(disable=True)
    return made


DENOISERS = ("transformer", "unet")


@serialized
def check_backend(name: str) -> None:
    """Refuse an attention backend that diffusers does not know, or that this machine lacks; "" is none."""
    if not name:
        return
    if "hub" in name:
        raise BadInput(f"{_key(name)}: would load code")
    from diffusers.models.attention_dispatch import (
        AttentionBackendName,
        _check_attention_backend_requirements,
    )

    known = sorted(one.value for one in AttentionBackendName if "hub" not in one.value)
    if name not in known:
        raise BadInput(f"{_key(name)}: unknown; wanted one of: {', '.join(known)}")
    try:
        _check_attention_backend_requirements(AttentionBackendName(name))
    except RuntimeError as error:
        raise BadInput(f"{_key(name)}: {first_line(error)}") from error


@serialized
def check_compiles(folder: Path) -> None:
    """Refuse to compile a pipeline whose denoiser names no repeated blocks, by its index."""
    import diffusers

    named = {part: kind for part, kind in _read_classes(folder).items() if part in DENOISERS}
    for part, kind in named.items():
        if not getattr(getattr(diffusers, kind, None), "_repeated_blocks", None):
            raise BadInput(f"generator.compile = true: the {part}'s class {kind} has no blocks to compile")


def use_backend(denoiser: Any, name: str) -> None:
    """Let a denoiser's attention run on a backend; raise `BadInput` where none of its layers takes one."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    everywhere = _AttentionBackendRegistry._active_backend
    denoiser.set_attention_backend(name)
    _AttentionBackendRegistry.set_active_backend(everywhere)  # other models of this process keep theirs
    wanted = AttentionBackendName(name)
    processors = (getattr(module, "processor", None) for module in denoiser.modules())
    if not any(getattr(one, "_attention_backend", None) == wanted for one in processors):
        raise BadInput(f"{_key(name)}: {type(denoiser).__name__} has no attention that takes a backend")


def _key(name: str) -> str:
    return f"generator.attention_backend = {name!r}"
