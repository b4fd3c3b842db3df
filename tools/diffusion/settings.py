"""Settings of all diffusers backends; importing them imports no model library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pleinair.tools.diffusion.families import INPAINTING, Family, Inpainting, find_family
from pleinair.tools.diffusion.offload import OffloadLevel
from pleinair.tools.model_files.hub import ModelLocation
from pleinair.tools.types import BadInput, Guidance, Side, Steps
from pleinair.tools.worker.devices import check_devices, list_devices

_REQUEST_ARGUMENTS = frozenset(
    "prompt negative_prompt height width num_inference_steps generator output_type "
    "callback_on_step_end".split()
)


class DiffusersSettings(ModelLocation):
    """Settings of every diffusers backend, by the names of diffusers' arguments.

    Validation reads no file and imports no model library.
    """

    families: ClassVar[Mapping[str, Family]] = {}

    pipeline: str = Field(default="", description="class of diffusers that generates")
    device: str = Field(default="cpu", description='torch device, or "auto" for CUDA, else MPS, else the CPU')
    devices: Annotated[str, AfterValidator(check_devices)] = Field(
        default="",
        description='devices in place of `device`, each with a worker process: "all" GPUs, or such as '
        '"cuda:0,cuda:1"; "cpu:0,cpu:1" are two processes on the CPU',
    )
    dtype: Literal["", "float32", "bfloat16", "float16"] = Field(
        default="", description="number format; by default float32 on the CPU and bfloat16 elsewhere"
    )
    memory: OffloadLevel = Field(default="whole", description="offload level to begin with")
    memory_limit: float | None = Field(
        default=None, gt=0, description="GiB that the model may take; by default the free memory, on CUDA"
    )
    compile: bool = Field(default=False, description="compile the denoiser's repeated blocks")
    attention_backend: str = Field(default="", description='name in diffusers, such as "native"')
    slots: int | None = Field(
        default=None, ge=0, description="references a call; by default the class's maximum"
    )
    height: Side = Field(default=1024, description="of the image, pixels")
    width: Side = Field(default=1024, description="of the image, pixels")
    max_pixels: int | None = Field(
        default=None, gt=0, description="width × height that a request may have; by default any number"
    )
    num_inference_steps: Steps = Field(default=28, description="diffusion steps of an image")
    draft_steps: int | None = Field(default=None, gt=0, description="steps of a draft; by default all")
    guidance_scale: Guidance = Field(default=3.5, description="in the argument that the class has for it")
    reference_size: int = Field(default=512, gt=0, description="longest side of a sent reference, in pixels")
    inpaint: bool = Field(default=True, description="inpaint boxes, if there is a class for it")
    batch: int = Field(
        default=1,
        ge=1,
        le=64,
        description="images of one request that a forward pass makes at most, where they have no references "
        "and memory has room; they may differ in their last bits from images made one by one",
    )
    encoding_cache: int = Field(
        default=256, ge=0, description="MiB of encoded prompts and references that are used again; 0 for none"
    )
    options: Mapping[str, Any] = Field(default={}, description="further arguments of the pipeline's call")

    @property
    def family(self) -> Family:
        """Return the family of the pipeline's class; raise `BadInput` for an unsupported one."""
        return find_family(self.families, self.pipeline)

    @property
    def own_device(self) -> str:
        """Return the device of this process: `device` if `devices` lists it or is empty, else the first."""
        if not self.devices or self.device in (names := list_devices(self.devices)):
            return self.device
        return names[0]

    @property
    def inpainting(self) -> Inpainting | None:
        """Return the class that inpaints; None if there is none or it is switched off."""
        return INPAINTING.get(self.pipeline) if self.inpaint else None

    @property
    def call_options(self) -> Mapping[str, Any]:
        """Return the arguments that every call of the pipeline has in addition to the request's."""
        return self.options

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        family = self.family
        if self.slots is not None and self.slots > family.slots:
            raise BadInput(f"generator.slots = {self.slots}: {self.pipeline} takes at most {family.slots}")
        reserved = _REQUEST_ARGUMENTS | {family.images, family.guidance}
        if keys := sorted(reserved & set(self.call_options)):
            raise BadInput(f"generator.options.{keys[0]}: set by the request, not by an option")
        if not family.guidance and "guidance_scale" in self.model_fields_set:
            raise BadInput(
                f"generator.guidance_scale = {self.guidance_scale}: {self.pipeline} has no guidance"
            )
        if self.draft_steps is not None and self.draft_steps >= self.num_inference_steps:
            raise BadInput(
                f"generator.draft_steps = {self.draft_steps}: wanted less than {self.num_inference_steps}, "
                "generator.num_inference_steps"
            )
        return self
