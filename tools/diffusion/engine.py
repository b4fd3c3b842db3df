"""What all diffusers engines have: how a model is named, loaded, placed, called, watched and stopped.

Each way of conditioning is a subclass that says which classes it drives, how references become arguments
and what it loads beside the pipeline. Not covered: several pictures a call, and processes of their own.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from pleinair.tools.arguments import check_values
from pleinair.tools.diffusion.call import call_arguments, seeded, to_picture
from pleinair.tools.diffusion.families import INPAINTING, Family, family_of
from pleinair.tools.diffusion.inpaint import Job, parted
from pleinair.tools.diffusion.loading import (
    check_backend,
    check_class,
    check_compiles,
    fetch_pipeline,
    open_pipeline,
    options_of,
    plain_form,
    use_backend,
)
from pleinair.tools.diffusion.memory import Needs, lower_to_weights, read_needs, room_on, unit_of
from pleinair.tools.diffusion.offload import DTYPES, RUNGS, Ladder, find_device, find_dtype
from pleinair.tools.generate import check_request, check_size
from pleinair.tools.model_files.hub import INDEX, Source
from pleinair.tools.types import BadInput, Capabilities, GenerateRequest, Guidance, OnStep, Side, Steps

if TYPE_CHECKING:
    from PIL.Image import Image

SET_BY_US = (
    "prompt negative_prompt height width num_inference_steps generator output_type callback_on_step_end"
)
PLACEHOLDER = "0" * 40  # a commit
OURS = frozenset(SET_BY_US.split())


@dataclass(eq=False)
class DiffusersEngine(ABC):
    """Draw with one pipeline of diffusers; one picture at a time, loaded at the first.

    Args:
        folder: a local pipeline folder, or `pocket/NAME` for one in this package.
        model: a hub id instead, with its `revision`.
        revision: the commit of the hub id.
        allow_branch: take a branch name as revision.
        local_files_only: load from the cache and never ask the hub.
        variant: name of a second set of weights in the folder, such as "fp16".
        pipeline: the class of diffusers that draws.
        device: a torch device, or "auto" for CUDA, else MPS, else the CPU.
        dtype: float32, bfloat16 or float16; empty is float32 on the CPU and bfloat16 elsewhere.
        memory: the rung to begin on: whole, vae_tiling, model_offload or sequential_offload.
        memory_limit: GiB that the model may take. Where its weights do not fit within it, and on CUDA within
            what is free, it begins on a lower rung or is refused.
        compile: compile the denoiser's repeated blocks at the first picture.
        attention_backend: a name that diffusers knows, such as "native" or "flash"; none from the hub.
        slots: references that may be given at once; the class's own limit unless set.
        height: of the pictures in pixels, like `width`.
        draft_steps: for a first look at a prompt, fewer than `num_inference_steps`; none draws it in full.
        guidance_scale: in the argument that the class has for it.
        reference_size: longest side in pixels that a reference is scaled down to.
        inpaint: paint boxes of a picture anew, where the class has a form for it.
        options: other arguments of the pipeline's call, by diffusers' names.
    """

    engine: ClassVar[str]
    families: ClassVar[Mapping[str, Family]]
    parts: ClassVar[tuple[str, ...]] = ("",)  # prefixes of the arguments that name a model on the hub

    folder: str = ""
    _: KW_ONLY
    model: str = ""
    revision: str = ""
    allow_branch: bool = False
    local_files_only: bool = False
    variant: str = ""
    pipeline: str = ""
    device: str = "cpu"
    dtype: str = ""
    memory: str = "whole"
    memory_limit: Annotated[float, Field(gt=0)] | None = None
    compile: bool = False
    attention_backend: str = ""
    slots: int | None = None
    height: Side = 1024
    width: Side = 1024
    num_inference_steps: Steps = 28
    draft_steps: Steps | None = None
    guidance_scale: Guidance = 3.5
    reference_size: Annotated[int, Field(gt=0)] = 512
    inpaint: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check everything that can be checked before weights are touched; raise `BadInput`."""
        named = [one.name for one in fields(self) if one.init]
        check_values(type(self), {name: getattr(self, name) for name in named}, "generator")
        self.family = family_of(self.families, self.pipeline)
        self.source = Source(
            folder=self.folder,
            model=self.model,
            revision=self.revision,
            allow_branch=self.allow_branch,
            local_files_only=self.local_files_only,
        )
        self.inpainting = INPAINTING.get(self.pipeline) if self.inpaint else None
        self._check_settings()
        check_class(self.source, self.pipeline, self.family.opens)
        check_backend(self.attention_backend)
        self._lock = threading.Lock()
        self._needs: Needs | None = None
        self._forms: dict[str, Any] = {}
        self._ladder: Ladder | None = None
        self._placed = ""  # the rung that the loaded pipeline stands on
        self.capabilities = self._declared()

    @classmethod
    def declare(cls, **arguments: Any) -> Capabilities:
        """Check arguments and return the capabilities; nothing is loaded and the hub is not asked.

        A model that is at no commit yet, or at a branch, is declared under a placeholder.
        """
        for part in cls.parts:
            key = f"{part}revision"
            if arguments.get(f"{part}model") and (arguments.get("allow_branch") or not arguments.get(key)):
                arguments[key] = PLACEHOLDER
        return cls(**arguments).capabilities

    @abstractmethod
    def conditioning(
        self, pipeline: Any, request: GenerateRequest, images: Sequence[Image]
    ) -> dict[str, Any]:
        """Turn references into arguments of the call; without any, into what the class wants then."""

    def open(self, folder: Path, dtype: Any) -> Any:
        """Load the pipeline from its folder, on the CPU."""
        return open_pipeline(folder, self.pipeline, dtype, self.variant)

    def identities(self) -> list[str]:
        """Name every model that is loaded."""
        return [self.source.id]

    @property
    def offload_levels(self) -> list[str]:
        """List the ways of placing the model that were tried, the present one last."""
        return list(self._ladder.taken) if self._ladder else []

    def generate(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image:
        """Draw one picture; the same request on the same machine gives the same pixels.

        Args:
            request: prompt, size, steps, guidance and seed.
            images: the references' pictures, in the order of `request.references`; that of a repaint last.
            on_step: told the steps done and the steps in all, first none; what it raises passes through.

        Raises:
            BadInput: what `check_request` refuses, or a request that the class cannot take.
            ModelFault: the numbers overflowed on the way.
            OutOfMemory: it fits in none of the ways that the machine has.
        """
        check_request(request, self.capabilities, len(images) - bool(request.inpaint))
        with self._lock:
            ladder = self._ladder = self._ladder or Ladder(find_device(self.device), self.memory)
            return ladder.try_all(lambda: self._draw(request, images, on_step))

    def foresee(self, job: Job) -> None:
        """Choose a rung with room for the weights before they are placed, or raise `OutOfMemory`."""
        if self._ladder and (found := self._foreseen(self._ladder.device)):
            lower_to_weights(self._ladder, *found)

    def _foreseen(self, device: str) -> tuple[Needs, int] | None:
        """Give what the model takes and the bytes that it may take; None where one is not known."""
        room = room_on(device, self.memory_limit)
        if room is not None and self._needs is None:
            folder = fetch_pipeline(self.source, self.pipeline, self.family.opens, self.variant)
            size = find_dtype(device, self.family.dtype or self.dtype).itemsize
            self._needs = read_needs(folder, self.family, size, self.variant)
        return (self._needs, room) if room is not None and self._needs else None

    def _check_settings(self) -> None:
        limit, taken = self.family.slots, {*OURS, self.family.images, self.family.guidance}
        if self.slots is not None and not 0 <= self.slots <= limit:
            raise BadInput(f"generator.slots = {self.slots}: {self.pipeline} takes at most {limit}")
        if ours := sorted(taken & set(self.options)):
            raise BadInput(f"generator.options.{ours[0]}: set by the request, not by an option")
        if self.draft_steps is not None and not 0 < self.draft_steps < self.num_inference_steps:
            most = self.num_inference_steps - 1
            raise BadInput(f"generator.draft_steps = {self.draft_steps}: wanted 1 to {most}, or none")
        for key, value, known in (("memory", self.memory, RUNGS), ("dtype", self.dtype, ("", *DTYPES))):
            if value not in known:
                raise BadInput(
                    f"generator.{key} = {value!r}: wanted one of: {', '.join(filter(None, known))}"
                )

    def _declared(self) -> Capabilities:
        slots, inpainting = self.family.slots if self.slots is None else self.slots, self.inpainting
        unit = unit_of(self.source.here(), self.family) or 8
        check_size(self.height, self.width, unit, f"generator.height and width: {self.pipeline}")
        return Capabilities(
            id=f"{self.engine}:{'+'.join(self.identities())}",
            slots=slots,
            negative_prompt=self.family.negative_prompt,
            inpaint=inpainting is not None,
            inpaint_slots=min(slots, inpainting.slots) if inpainting else 0,
            height=self.height,
            width=self.width,
            multiple_of=unit,
            num_inference_steps=self.num_inference_steps,
            draft_steps=self.draft_steps,
            guidance_scale=self.guidance_scale,
        )

    def _form(self, job: Job) -> Any:
        assert self._ladder is not None
        self.foresee(job)
        if self.pipeline not in self._forms:
            self._forms[self.pipeline] = self._load(self._ladder.device)
        if self._placed != self._ladder.rung:
            self._ladder.place(self._forms[self.pipeline], self.family.resident)
            self._placed = self._ladder.rung
        name = self.pipeline if job.images else self.family.plain or self.pipeline
        if job.old and self.inpainting:
            name = self.inpainting.pipeline
        if name not in self._forms:
            self._forms[name] = plain_form(self._forms[self.pipeline], name)
        return self._forms[name]

    def _load(self, device: str) -> Any:
        if self.compile:
            check_compiles(self.source.fetch((INDEX,)))
        folder = fetch_pipeline(self.source, self.pipeline, self.family.opens, self.variant)
        pipeline = self.open(folder, find_dtype(device, self.family.dtype or self.dtype))
        denoiser = getattr(pipeline, "transformer", None) or pipeline.unet
        if self.attention_backend:
            use_backend(denoiser, self.attention_backend)
        if self.compile:
            denoiser.compile_repeated_blocks()
        return pipeline

    def _draw(self, request: GenerateRequest, images: Sequence[Image], on_step: OnStep) -> Image:
        job = parted(request, images)
        pipeline = self._form(job)
        unit = pipeline.vae_scale_factor * self.family.patch
        check_size(request.height, request.width, unit, self.pipeline)
        arguments = {
            **options_of(pipeline, self._forms[self.pipeline], self.options),
            **call_arguments(request, self.family, on_step, self.capabilities.id),
        }
        arguments |= job.arguments(self.inpainting, unit) | self.conditioning(
            pipeline, job.request, job.images
        )
        # a scheduler keeps state between calls, so each call gets its own
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        on_step(0, request.num_inference_steps)  # the model is loaded, and drawing begins
        try:
            with seeded(pipeline, request.seed):
                return job.finish(to_picture(pipeline, pipeline(**arguments), self.capabilities.id))
        finally:
            # what is still on the device, after a stop or when a plain form drew
            self._forms[self.pipeline].maybe_free_model_hooks()
