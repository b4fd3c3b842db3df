"""Pipelines that a program has loaded and placed on a device by itself, called by the engine of their class.

The program's own pipeline keeps its scheduler and image processor: a copy of it, with the same parts, gets
others. The scale of its IP-Adapter is that of the last image. Not covered: lower offload levels where memory
runs out.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from pleinair.tools.diffusion.controlnet import ControlNet
from pleinair.tools.diffusion.engine import DiffusersEngine, LoadedPipeline
from pleinair.tools.diffusion.families import Family
from pleinair.tools.diffusion.in_context import InContext, accept_small_references
from pleinair.tools.diffusion.ip_adapter import IpAdapter
from pleinair.tools.diffusion.settings import DiffusersSettings
from pleinair.tools.diffusion.text_only import TextOnly
from pleinair.tools.model_files.hub import ModelLocation
from pleinair.tools.types import BadInput

# the first that has a pipeline's class
ENGINES: tuple[type[DiffusersEngine], ...] = (InContext, ControlNet, IpAdapter, TextOnly)
SIDE = 1024  # pixels, where a pipeline does not say for which size it was trained
# settings that a loaded pipeline has by itself
_PLACED = {*ModelLocation.model_fields, "pipeline", "device", "dtype", "memory", "memory_limit", "compile"}
_PLACED |= {"attention_backend", "image_encoder"}
_LOCKS: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()  # by pipeline: one image at a time
_GUARD = threading.Lock()


def find_engine(pipeline: Any) -> tuple[type[DiffusersEngine], str]:
    """Return the engine of a pipeline and the class by which it calls it; raise `BadInput` if there is none.

    A Stable Diffusion pipeline takes references only if an IP-Adapter has been loaded into it.
    """
    for kind in type(pipeline).__mro__:
        for engine in ENGINES:
            is_class = kind.__name__ in engine.settings_model.families
            if is_class and (engine is not IpAdapter or _has_adapter(pipeline)):
                return engine, kind.__name__
    classes = sorted({name for engine in ENGINES for name in engine.settings_model.families})
    raise BadInput(
        f"generator: {type(pipeline).__name__} is not supported; accepted: {', '.join(classes)}",
        "An object with `capabilities` and `generate` may call any other pipeline.",
    )


def wrap(pipeline: Any, arguments: Mapping[str, Any]) -> DiffusersEngine:
    """Build the engine that generates with a loaded pipeline, on the device where that is.

    Args:
        pipeline: of a class in `families`.
        arguments: of the engine, such as `num_inference_steps`; by default the class's own values.

    Raises:
        BadInput: the class is not supported, or an argument is unknown, unusable or about loading a model.
    """
    engine, name = find_engine(pipeline)
    model = engine.settings_model
    accepted = [field for field in model.model_fields if field not in _PLACED and not _is_location(field)]
    for key, value in arguments.items():
        if key not in accepted:
            raise BadInput(
                f"generator.{key} = {value!r}: a loaded pipeline has no such setting; accepted: "
                f"{', '.join(accepted)}"
            )
    defaults = _defaults(pipeline, name, model)
    return engine(loaded=_loaded(pipeline, engine), pipeline=name, **{**defaults, **arguments})


def _is_location(field: str) -> bool:
    return field.startswith(("adapter_", "controlnet_")) and not field.endswith("_scale")


def _loaded(pipeline: Any, engine: type[DiffusersEngine]) -> LoadedPipeline:
    with _GUARD:
        lock = _LOCKS.setdefault(pipeline, threading.Lock())
    view = copy.copy(pipeline)
    view.set_progress_bar_config(disable=True)
    if engine is InContext:
        accept_small_references(view)
    source = f" {pipeline.name_or_path}" if pipeline.name_or_path else ""
    return LoadedPipeline(view, f"{type(pipeline).__name__}{source}", lock)


def _defaults(pipeline: Any, name: str, model: type[DiffusersSettings]) -> dict[str, Any]:
    """Return size, steps and guidance as the pipeline's class has them by default."""
    family = model.families[name]
    side = _side(pipeline, family)
    parameters = inspect.signature(type(pipeline).__call__).parameters
    values = {"num_inference_steps": "num_inference_steps", "guidance_scale": family.guidance}
    defaults = {
        key: parameters[argument].default for key, argument in values.items() if argument in parameters
    }
    numbers = {key: value for key, value in defaults.items() if isinstance(value, int | float)}
    is_distilled = pipeline.config.get("is_distilled")  # for the steps that the engine has by default
    return {"height": side, "width": side, **({} if is_distilled else numbers)}


def _side(pipeline: Any, family: Family) -> int:
    unet = getattr(pipeline, "unet", None)
    sample = getattr(pipeline, "default_sample_size", None) or (unet and unet.config.sample_size)
    unit = pipeline.vae_scale_factor * family.patch
    side = sample * pipeline.vae_scale_factor if isinstance(sample, int) else SIDE
    return int(max(side // unit, 1) * unit)


def _has_adapter(pipeline: Any) -> bool:
    """Return whether an IP-Adapter, with its image encoder, has been loaded into a pipeline."""
    unet, encoder = getattr(pipeline, "unet", None), getattr(pipeline, "image_encoder", None)
    return bool(unet and encoder and getattr(unet.config, "encoder_hid_dim_type", "") == "ip_image_proj")
