"""Device, number format and offload level of a pipeline, and what is tried when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, get_args

from pleinair.tools.types import BadInput, PleinairError

T = TypeVar("T")

# from fast and large to slow and small; the last two need a device other than the CPU
OffloadLevel = Literal["whole", "vae_tiling", "model_offload", "sequential_offload"]
LEVELS: tuple[str, ...] = get_args(OffloadLevel)
CPU_LEVELS = LEVELS[:2]
log = logging.getLogger(__name__)


class OutOfMemory(PleinairError):
    """An image did not fit in memory at any offload level of the device."""


def find_device(name: str) -> str:
    """Return a torch device; "auto" is CUDA, else MPS, else the CPU, and "cpu:1" is the CPU.

    Raise `BadInput` for an absent one.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    devices = [device for device, is_available in available.items() if is_available]
    if name == "auto":
        return devices[0]
    kind, _, number = name.partition(":")
    is_absent = kind == "cuda" and int(number or 0) >= torch.cuda.device_count()
    if kind not in devices or is_absent:
        choices = ", ".join(["auto", *devices])
        raise BadInput(f"generator.device = {name!r}: not on this machine; wanted one of: {choices}")
    return "cpu" if name.startswith("cpu") else name


def find_dtype(device: str, name: str = "") -> Any:
    """Return the torch dtype of a name; by default float32 on the CPU and bfloat16 elsewhere."""
    import torch

    return getattr(torch, name or ("float32" if device == "cpu" else "bfloat16"))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on a device or on the CPU."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


class Offloading:
    """Offload level of one pipeline, which is lowered when memory runs out.

    `history` lists the levels tried so far, the current one last. By default `levels` are the device's.
    """

    def __init__(self, device: str, level: str = "whole", levels: Sequence[str] = ()) -> None:
        self.device = device
        self._levels = levels or (CPU_LEVELS if device == "cpu" else LEVELS)
        if level not in self._levels:
            raise BadInput(
                f"generator.memory = {level!r}: wanted one of: {', '.join(self._levels)} on {device}"
            )
        self.history = [level]

    @property
    def level(self) -> str:
        """Return the current level."""
        return self.history[-1]

    @property
    def remaining(self) -> Sequence[str]:
        """List the current level and those below it."""
        return self._levels[self._levels.index(self.level) :]

    def lower(self, level: str, reason: str) -> None:
        """Change to a lower level and free the device's cached memory."""
        log.warning("Offload level %s is lowered to %s: %s", self.level, level, reason)
        self.history.append(level)
        _free_memory(self.device)

    def place(self, pipeline: Any, resident: Sequence[str] = ()) -> None:
        """Move a pipeline's parts as the level demands; `resident` ones are never offloaded sequentially."""
        if self.level != "whole" and hasattr(pipeline.vae, "enable_tiling"):
            pipeline.vae.enable_tiling()
        if self.level == "model_offload":
            pipeline.enable_model_cpu_offload(device=self.device)
        elif self.level == "sequential_offload":
            pipeline._exclude_from_cpu_offload = [*type(pipeline)._exclude_from_cpu_offload, *resident]
            pipeline.enable_sequential_cpu_offload(device=self.device)
        else:
            pipeline.to(self.device)

    def retry(self, work: Callable[[], T]) -> T:
        """Return what `work`, which places its pipeline first, returns; try lower levels if memory runs out.

        Raises `OutOfMemory` if memory runs out at the last level too.
        """
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).strip().partition("\n")[0][:200]
            # outside of the handler, whose traceback holds the tensors
            if not self.remaining[1:]:
                raise OutOfMemory(
                    f"The image does not fit in memory on {self.device} (tried: {', '.join(self.history)}; "
                    f"{reason}).",
                    "Use a smaller image, fewer or smaller references, or free memory.",
                )
            self.lower(self.remaining[1], reason)


def _free_memory(device: str) -> None:
    import gc

    import torch

    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
