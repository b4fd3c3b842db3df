"""Where a pipeline runs and in which number format, and what is tried when its memory does not suffice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pleinair.tools.types import BadInput, PleinairError

T = TypeVar("T")

# from quick and large to slow and small; the last two need a device besides the CPU
RUNGS = ("whole", "vae_tiling", "model_offload", "sequential_offload")
ON_CPU = RUNGS[:2]
DTYPES = ("float32", "bfloat16", "float16")
log = logging.getLogger(__name__)


class OutOfMemory(PleinairError):
    """A picture did not fit in memory in any of the ways that the machine has."""


def find_device(wanted: str) -> str:
    """Give the device for `wanted`; "auto" is CUDA, else MPS, else the CPU.

    Raises:
        BadInput: a device that this machine has not.
    """
    import torch

    have = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, here in have.items() if here)
    if not have.get(wanted.partition(":")[0]):
        choices = ", ".join(["auto", *(name for name, here in have.items() if here)])
        raise BadInput(f"generator.device = {wanted!r}: not on this machine; wanted one of: {choices}")
    return wanted


def find_dtype(device: str, wanted: str = "") -> Any:
    """Give the number format: the wanted one, else float32 on the CPU and bfloat16 elsewhere."""
    import torch

    return getattr(torch, wanted or ("float32" if device == "cpu" else "bfloat16"))


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on a device or on the CPU."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


class Ladder:
    """Hold how a pipeline is placed, and step down to smaller and slower ways when memory runs out.

    `taken` lists the offload levels tried so far, the present one last.
    """

    def __init__(self, device: str, start: str = "whole") -> None:
        self.device = device
        self._rungs = ON_CPU if device == "cpu" else RUNGS
        if start not in self._rungs:
            raise BadInput(
                f"generator.memory = {start!r}: wanted one of: {', '.join(self._rungs)} on {device}"
            )
        self.taken = [start]

    @property
    def rung(self) -> str:
        """Name the present rung."""
        return self.taken[-1]

    @property
    def left(self) -> Sequence[str]:
        """List the present rung and those under it."""
        return self._rungs[self._rungs.index(self.rung) :]

    def lower(self, rung: str, why: str) -> None:
        """Go to a rung under the present one before memory runs out."""
        log.warning("Not trying rung %s, beginning with %s: %s", self.rung, rung, why)
        self.taken.append(rung)
        _release(self.device)

    def place(self, pipeline: Any, resident: Sequence[str] = ()) -> None:
        """Put a pipeline where the present rung says; `resident` parts are never offloaded by layers."""
        if self.rung != "whole" and hasattr(pipeline.vae, "enable_tiling"):
            pipeline.vae.enable_tiling()
        if self.rung == "model_offload":
            pipeline.enable_model_cpu_offload(device=self.device)
        elif self.rung == "sequential_offload":
            pipeline._exclude_from_cpu_offload = [*type(pipeline)._exclude_from_cpu_offload, *resident]
            pipeline.enable_sequential_cpu_offload(device=self.device)
        else:
            pipeline.to(self.device)

    def step_down(self, why: str) -> None:
        """Go to the next rung, or raise `OutOfMemory` from the last."""
        left = self.left[1:]
        if not left:
            tried = ", ".join(self.taken)
            raise OutOfMemory(
                f"The picture does not fit in memory on {self.device} (tried: {tried}; {why}).",
                "Ask for a smaller picture, for fewer or smaller references, or free memory.",
            )
        log.warning("Out of memory on rung %s, going on with %s: %s", self.rung, left[0], why)
        self.taken.append(left[0])
        _release(self.device)

    def try_all(self, work: Callable[[], T]) -> T:
        """Do `work`, which places its pipeline first, again on each further rung while memory runs out."""
        while True:
            try:
                return work()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                why = str(error).strip().partition("\n")[0][:200]
            self.step_down(why)  # out of the handler, whose traceback holds the tensors


def _release(device: str) -> None:
    """Give cached memory back to the device."""
    import gc

    import torch

    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
