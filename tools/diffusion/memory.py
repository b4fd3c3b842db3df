"""Estimate of the device memory that an image takes, made before a weight is loaded.

Weights are counted from the headers of their files. What a step holds beside them grows with the tokens and
with the transformer's width, by a number that was measured for the family (`Family.activations`). For a
family without one only the weights are known, a lower bound. Not covered: the autoencoder's decoding, which
tiling makes small, attention that materialises its matrix, control branches and adapters, quantised weights,
and other programs on the device.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pleinair.tools.diffusion.families import Family
from pleinair.tools.diffusion.loading import read_index
from pleinair.tools.diffusion.offload import Offloading, OutOfMemory
from pleinair.tools.model_files.folders import read_header
from pleinair.tools.model_files.variants import select_weights
from pleinair.tools.types import BadInput

GIB = 2**30
BYTES = {"I64": 8, "I32": 4, "I16": 2}  # of other formats one
FLOATS = ("F64", "F32", "F16", "BF16")  # converted to the requested format while loading


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Memory that a model takes."""

    parts: Mapping[str, int]  # bytes of the weights by part, in the format in which they are loaded
    token_bytes: float  # that a step holds for each token, an estimate; 0 if the family was not measured
    unit: int  # side of a token in pixels

    def weights(self, level: str) -> int:
        """Return the bytes of weights that are on the device at once."""
        if level == "sequential_offload":
            return 0  # a layer at a time: little beside the rest
        return max(self.parts.values()) if level == "model_offload" else sum(self.parts.values())

    def max_tokens(self, level: str, room: int) -> int:
        """Return the longest sequence that fits in `room` bytes; negative if the weights do not."""
        return math.floor((room - self.weights(level)) / self.token_bytes)

    def total(self, level: str, tokens: int) -> int:
        """Return the bytes that a sequence takes, weights included."""
        return self.weights(level) + round(self.token_bytes * tokens)

    def describe(self, level: str, tokens: int) -> str:
        """Return the estimate as text."""
        weights = format_gib(self.weights(level))
        if not self.token_bytes:
            return f"at least {weights} GiB at offload level {level}, for the weights alone"
        total, steps = format_gib(self.total(level, tokens)), format_gib(round(self.token_bytes * tokens))
        return (
            f"about {total} GiB at offload level {level}: {weights} of weights, {steps} for {tokens:,} tokens"
        )


def read_estimate(folder: Path, family: Family, itemsize: int, variant: str = "") -> MemoryEstimate | None:
    """Return the estimate for the model in a folder; None if it has no weights.

    Args:
        folder: with the pipeline's index, its configs and its weights.
        family: of its class.
        itemsize: bytes of a number in the format in which it is loaded.
        variant: name of a second set of weights.
    """
    config = _read_config(folder / "transformer")
    width = config.get("num_attention_heads", 0) * config.get("attention_head_dim", 0)
    parts = {part: _count_weights(folder / part, itemsize, variant) for part in read_index(folder)[1]}
    if not any(parts.values()):
        return None
    unit = read_pixel_unit(folder, family)
    is_measured = width and parts.get("transformer") and unit
    token_bytes = family.activations * width * itemsize if is_measured else 0.0
    return MemoryEstimate(parts=parts, token_bytes=token_bytes, unit=unit or 1)


def read_pixel_unit(folder: Path | None, family: Family) -> int | None:
    """Return the pixels of which sides are multiples; None if the folder's autoencoder does not say."""
    vae = _read_config(folder / "vae") if folder else {}
    halvings = len(vae.get("temperal_downsample", vae.get("block_out_channels", ())[1:]))
    return 2**halvings * family.patch if vae else None


def _read_config(part: Path) -> dict[str, Any]:
    path = part / "config.json"
    config: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return config


def _count_weights(part: Path, itemsize: int, variant: str) -> int:
    names = select_weights([path.name for path in part.glob("*.safetensors")], variant)
    return sum(_loaded_bytes(tensor, itemsize) for name in names for tensor in _read_tensors(part / name))


def _read_tensors(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the entries of a safetensors header; none of a damaged one, which loading refuses."""
    try:
        entries = json.loads(read_header(path))
    except ValueError:
        return
    yield from (entry for name, entry in entries.items() if name != "__metadata__")


def _loaded_bytes(tensor: Mapping[str, Any], itemsize: int) -> int:
    dtype, shape = str(tensor["dtype"]), list[int](tensor["shape"])
    return math.prod(shape) * (itemsize if dtype in FLOATS else BYTES.get(dtype, 1))


def available_memory(device: str, limit: float | None) -> int | None:
    """Return the bytes that a model may take: the limit in GiB, and on CUDA what is free; None if unknown.

    What torch has reserved counts as free, since the model itself may be there.
    """
    bounds = [] if limit is None else [round(limit * GIB)]
    if device.startswith("cuda"):
        import torch

        bounds.append(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    return min(bounds, default=None)


def format_gib(size: int) -> str:
    """Return bytes in GiB as text, with two significant digits below 1."""
    return f"{size / GIB:.1f}" if size >= GIB else f"{size / GIB:.2g}"


def fit_weights(offloading: Offloading, estimate: MemoryEstimate, room: int) -> None:
    """Lower the offload level to the first at which the weights fit in `room` bytes.

    Raises `OutOfMemory` if there is none. Whether an image fits beside them shows later.
    """
    level = next((level for level in offloading.remaining if estimate.weights(level) <= room), None)
    needed = estimate.describe(offloading.level, 0)
    if level is None:
        raise OutOfMemory(
            f"The model would not fit in memory: it takes {needed}, with room for {format_gib(room)} GiB.",
            "Use a smaller model or a device with more memory, or free some.",
        )
    if level != offloading.level:
        offloading.lower(level, needed)


def choose_level(
    estimate: MemoryEstimate, levels: Sequence[str], room: int, plan: Callable[[int | None], int]
) -> tuple[str, int]:
    """Choose the first level at which the full sequence fits, else the one with the most room.

    A lower level generates the same image more slowly, so it is preferred to smaller references.

    Args:
        estimate: of the model.
        levels: the current one and those below it.
        room: available bytes.
        plan: returns the tokens within a limit, and raises `BadInput` if no plan is within it.

    Returns:
        The level and the tokens that fit at it.

    Raises:
        OutOfMemory: even the smallest references fit at no level.
        BadInput: they are too many tokens even without a memory limit.
    """
    limits, tokens = {level: estimate.max_tokens(level, room) for level in levels}, plan(None)
    level = next((level for level in limits if limits[level] >= tokens), max(limits, key=limits.__getitem__))
    try:
        plan(limits[level])
    except BadInput as error:
        raise OutOfMemory(
            f"The image would not fit in memory: {estimate.describe(level, tokens)} (an estimate), with room "
            f"for {format_gib(room)} GiB.",
            "Use a smaller image, fewer or smaller references, or free memory.",
        ) from error
    return level, limits[level]
