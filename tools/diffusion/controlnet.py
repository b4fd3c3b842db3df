"""ControlNet: the reference enters through a branch that follows its layout (RealRAG, appendix: its way).

RealRAG says that the retrieved image enters the control branch, not which branch or how strongly. Here it is
a tile branch by default, which takes an image as it is; a colour branch takes a mosaic of it. Spatial
branches copy the layout together with the look. Not covered: edges, depth, poses, and several branches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pleinair.tools.diffusion.engine import DiffusersEngine
from pleinair.tools.diffusion.families import CONTROLNET
from pleinair.tools.diffusion.loading import open_part, open_pipeline
from pleinair.tools.diffusion.settings import DiffusersSettings
from pleinair.tools.model_files.integrity import find_part_faults
from pleinair.tools.model_files.variants import OTHER_SETS, SHARD_INDEX, Files, files_in, has_variant
from pleinair.tools.types import GenerateRequest, Guidance, Steps

if TYPE_CHECKING:
    from PIL.Image import Image

BLOCK = 64  # pixels of a mosaic's side


class ControlNetSettings(DiffusersSettings):
    """Settings of `ControlNet`."""

    families = CONTROLNET

    pipeline: str = "StableDiffusionXLControlNetPipeline"
    num_inference_steps: Steps = 50
    guidance_scale: Guidance = 5.0
    controlnet_folder: str = Field(default="", description="local folder of the branch")
    controlnet_model: str = Field(default="", description="hub id of the branch instead, with its revision")
    controlnet_revision: str = Field(default="", description="commit of the branch's hub id")
    controlnet_conditioning_scale: float = Field(
        default=1.0, ge=0, description="strength of the branch; 1 as it was trained"
    )
    control: Literal["picture", "mosaic"] = Field(
        default="picture", description="what the branch receives: the image, or a mosaic of its colours"
    )


class ControlNet(DiffusersEngine):
    """Generator with one reference in a control branch."""

    backend = "controlnet"
    prefixes = ("", "controlnet_")
    has_strength = True
    settings_model = ControlNetSettings
    settings: ControlNetSettings

    def __init__(self, folder: str = "", **settings: Any) -> None:
        super().__init__(folder, **settings)
        if not self.loaded:
            self.branch_source = self.settings.source("controlnet_")

    def identities(self) -> list[str]:
        """List the base model and the branch with its use."""
        use = f"{self.settings.control}×{self.settings.controlnet_conditioning_scale:g}"
        branch = "ControlNet" if self.loaded else self.branch_source.id
        return [*super().identities(), f"{branch}:{use}"]

    def open(self, folder: Path, dtype: Any) -> Any:
        """Load the base model with its branch."""
        variant = self.settings.variant
        names = self.branch_source.names() if variant else ()
        branch_folder = self.branch_source.require_files(
            *branch_files(variant, names), lambda folder: find_part_faults(folder, ".", variant)
        )
        branch = open_part(branch_folder, self.family.controlnet, dtype, variant)
        return open_pipeline(folder, self.settings.pipeline, dtype, variant, controlnet=branch)

    def condition(self, pipeline: Any, request: GenerateRequest, images: Sequence[Image]) -> dict[str, Any]:
        """Return the reference for the branch; without one another class generates."""
        if not images:
            return {}
        image, strength = crop_to_size(images[0], request.height, request.width), request.reference_strength
        scale = self.settings.controlnet_conditioning_scale if strength is None else strength
        return {
            self.family.images: mosaic(image) if self.settings.control == "mosaic" else image,
            "controlnet_conditioning_scale": scale,
        }


def branch_files(variant: str = "", names: Iterable[str] = ()) -> Files:
    """Return the patterns of a control branch's files, which are chosen from `names` for a variant."""
    stem, common = "diffusion_pytorch_model", ("config.json", "*.safetensors.index*.json")
    if variant and has_variant(files_in(names, ""), variant):
        return (*common, f"{stem}.{variant}*.safetensors"), (SHARD_INDEX,)
    return (*common, f"{stem}*.safetensors"), OTHER_SETS


def crop_to_size(image: Image, height: int, width: int) -> Image:
    """Scale and crop a reference around its centre to the new image's size."""
    from PIL import ImageOps

    return ImageOps.fit(image.convert("RGB"), (width, height))


def mosaic(image: Image) -> Image:
    """Keep only the colours of blocks of 64 pixels, on which colour branches were trained."""
    from PIL.Image import Resampling

    blocks = (max(image.width // BLOCK, 1), max(image.height // BLOCK, 1))
    return image.resize(blocks, Resampling.BICUBIC).resize(image.size, Resampling.NEAREST)
