"""Seconds and memory of an image, by model, number of references, and with and without compiling.

A model that is downloaded is called as a run calls it; of any other a pipeline with random weights is, whose
text encoders are left out. Every timed image has a prompt and references of its own, so that nothing that is
kept between the attempts of a run makes it faster.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

from pleinair.app.models.inventory import generator_settings
from pleinair.app.settings import BackendChoice, Settings
from pleinair.app.verify.plan import CannotMeasure, Part, Plan, Row, Say, missing_weights, require_local
from pleinair.app.verify.shapes import find_shape
from pleinair.app.verify.timed_models import RandomModel, RealModel, TimedModel
from pleinair.tools.diffusion.memory import GIB

MOST_REFERENCES = 4
LONGEST = 120.0  # seconds of the timed images of a row, unless a single one takes longer
_TINY_SIDE = 64  # pixels
_TINY_OPTIONS = {"FluxKontextPipeline": {"_auto_resize": False}}  # otherwise to a megapixel


def time_profile(part: Part, plan: Plan, say: Say) -> Iterator[Row]:
    """Yield a row for each number of references, 0 to the model's most and at most 4.

    Raises `CannotMeasure` without a GPU, or for a model that is neither downloaded nor of known sizes, and
    `OutOfMemory` with the rows before it yielded.
    """
    if plan.device == "cpu" and not plan.tiny:
        raise CannotMeasure("no CUDA GPU", "`--tiny` runs the same code on the CPU, which times nothing.")
    model, slots = open_model(part, plan)
    try:
        for references in range(min(slots, 1 if plan.tiny else MOST_REFERENCES) + 1):
            say(f"{references} references")
            yield _row(model, references, part.compiled, plan.repeats)
    finally:
        del model
        _free()


def open_model(part: Part, plan: Plan) -> tuple[TimedModel, int]:
    """Return the model of a part, and the most references that it takes; nothing is loaded yet."""
    settings = require_local(part.profile)
    backend = settings.generator.backend
    arguments = _arguments(settings, part, plan)
    options = generator_settings(BackendChoice(backend=backend, **arguments))
    lacking = next(missing_weights(settings), "")
    if not lacking:
        return RealModel(backend, arguments), options.family.slots
    shape = find_shape(options.model, options.pipeline, plan.tiny)
    if shape is None:
        raise CannotMeasure(
            f"{lacking}, and random weights of its sizes are not at hand",
            f"`pleinair models pull {part.profile}` downloads it.",
        )
    return RandomModel(backend, arguments, shape), options.family.slots


def _arguments(settings: Settings, part: Part, plan: Plan) -> dict[str, Any]:
    """Return the generator's arguments: the profile's, with every slot of the class and no short drafts."""
    arguments = settings.generator.arguments | {
        "device": plan.device,
        "devices": "",
        "compile": part.compiled,
        "slots": None,
        "draft_steps": None,
    }
    if plan.tiny:
        side = min(_TINY_SIDE, arguments.get("reference_size", _TINY_SIDE))
        arguments |= {"height": _TINY_SIDE, "width": _TINY_SIDE, "reference_size": side}
        arguments["num_inference_steps"] = 2
        arguments["options"] = _TINY_OPTIONS.get(arguments.get("pipeline", ""), {})
    return arguments


def _row(model: TimedModel, references: int, compiled: bool, repeats: int) -> Row:
    """Time images with so many references; the operations are counted before, and not of a compiled model."""
    row: Row = {"references": references, "weights": model.weights, "steps": model.steps}
    _reset_peak()
    if compiled:
        row["first_s"] = _seconds(lambda: model.draw(references, model.steps, 0))
    else:
        model.draw(references, 1, 0)  # loads the model at the first row
        row["tflop"] = count_operations(model, references) / 1e12
    first = _seconds(lambda: model.draw(references, model.steps, 1))
    numbers = range(2, 2 + max(0, min(repeats - 1, int(LONGEST // first) - 1)))
    times = [first, *(_seconds(partial(model.draw, references, model.steps, number)) for number in numbers)]
    estimate = model.estimate(references)
    return row | {
        "load_s": model.load_seconds,
        "s": statistics.median(times),
        "all_s": times,
        **_peak(),
        "estimate_gib": estimate and estimate / GIB,
        "levels": model.levels,
    }


def count_operations(model: TimedModel, references: int) -> float:
    """Return the floating-point operations of an image, an addition and a multiplication counted as two.

    Counted by torch's FlopCounterMode in images of one and of two steps, which differ by a step: the first
    step may differ from the others, as where keys and values are reused. Attention by kernels of other
    packages is not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    def count(steps: int) -> int:
        with FlopCounterMode(display=False) as counter:
            model.draw(references, steps, 0)
        return int(counter.get_total_flops())

    one, two = count(1), count(2)
    return one + (model.steps - 1) * (two - one)


def _seconds(call: Callable[[], object]) -> float:
    started = perf_counter()
    call()  # ends with the pixels in the computer's memory, so nothing is still running
    return perf_counter() - started


def _reset_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak() -> Row:
    """Return the most memory of the GPU that tensors took, and that torch reserved; nothing without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return {"peak_gib": None, "reserved_gib": None}
    peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return dict(zip(("peak_gib", "reserved_gib"), (size / GIB for size in peaks), strict=True))


def _free() -> None:
    import torch

    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()
