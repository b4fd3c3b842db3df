"""ControlNet: the reference enters through a branch that follows its layout (RealRAG, appendix: its way).

RealRAG says that the picture found goes into the control branch, not which branch or how strongly. Here it
is a tile branch by default, which takes a picture as it is; a colour branch takes a mosaic of it. Spatial
branches copy the layout together with the look. Not covered: edges, depth, poses, and several branches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from pleinair.tools.diffusion.engine import DiffusersEngine
from pleinair.tools.diffusion.families import CONTROLNET
from pleinair.tools.diffusion.loading import open_part, open_pipeline
from pleinair.tools.model_files.hub import Source
from pleinair.tools.model_files.integrity import of_part
from pleinair.tools.model_files.variants import DOUBLES, SHARDS, Files, has, inside
from pleinair.tools.types import BadInput, GenerateRequest, Guidance, Steps

if TYPE_CHECKING:
    from PIL.Image import Image

BLOCK = 64  # pixels of a mosaic's side
CONTROLS = ("picture", "mosaic")


@dataclass(eq=False)
class ControlNet(DiffusersEngine):
    """Generate with one reference in a control branch; further arguments are those of `DiffusersEngine`.

    Args:
        controlnet_model: hub id of the branch and its `controlnet_revision`; or a `controlnet_folder`.
        controlnet_conditioning_scale: how strongly the branch acts; 1 as it was trained.
        control: what the branch is shown, the "picture" itself or a "mosaic" of its colours.
    """

    engine: ClassVar[str] = "controlnet"
    families = CONTROLNET
    parts = ("", "controlnet_")

    pipeline: str = "StableDiffusionXLControlNetPipeline"
    num_inference_steps: Steps = 50
    guidance_scale: Guidance = 5.0
    controlnet_model: str = ""
    controlnet_folder: str = ""
    controlnet_revision: str = ""
    controlnet_conditioning_scale: Annotated[float, Field(ge=0)] = 1.0
    control: str = "picture"

    def __post_init__(self) -> None:
        """Check the branch's settings too."""
        if self.control not in CONTROLS:
            raise BadInput(f"generator.control = {self.control!r}: wanted one of: {', '.join(CONTROLS)}")
        self.branch_source = Source(
            folder=self.controlnet_folder,
            model=self.controlnet_model,
            revision=self.controlnet_revision,
            allow_branch=self.allow_branch,
            local_files_only=self.local_files_only,
            key="controlnet_",
        )
        super().__post_init__()

    def identities(self) -> list[str]:
        """Name the base model and the branch, with how it is used."""
        how = f"{self.control}×{self.controlnet_conditioning_scale:g}"
        return [*super().identities(), f"{self.branch_source.id}:{how}"]

    def open(self, folder: Path, dtype: Any) -> Any:
        """Load the base model with its branch."""
        names = self.branch_source.names() if self.variant else ()
        place = self.branch_source.fetch(
            *branch_files(self.variant, names), lambda folder: of_part(folder, ".", self.variant)
        )
        branch = open_part(place, self.family.controlnet, dtype, self.variant)
        return open_pipeline(folder, self.pipeline, dtype, self.variant, controlnet=branch)

    def conditioning(
        self, pipeline: Any, request: GenerateRequest, images: Sequence[Image]
    ) -> dict[str, Any]:
        """Give the reference to the branch; without one the plain form draws."""
        if not images:
            return {}
        shown = fitted(images[0], request.height, request.width)
        return {
            self.family.images: mosaic(shown) if self.control == "mosaic" else shown,
            "controlnet_conditioning_scale": self.controlnet_conditioning_scale,
        }


def branch_files(variant: str = "", names: Iterable[str] = ()) -> Files:
    """Give the patterns of what is fetched of a control branch, whose files are `names`, and of the rest."""
    stem, wanted = "diffusion_pytorch_model", ("config.json", "*.safetensors.index*.json")
    if variant and has(inside(names, ""), variant):
        return (*wanted, f"{stem}.{variant}*.safetensors"), (SHARDS,)
    return (*wanted, f"{stem}*.safetensors"), DOUBLES


def fitted(image: Image, height: int, width: int) -> Image:
    """Scale and crop a reference about its middle to the picture's own size."""
    from PIL import ImageOps

    return ImageOps.fit(image.convert("RGB"), (width, height))


def mosaic(image: Image) -> Image:
    """Keep only the colours of blocks of 64 pixels, as colour branches were trained on."""
    from PIL.Image import Resampling

    blocks = (max(image.width // BLOCK, 1), max(image.height // BLOCK, 1))
    return image.resize(blocks, Resampling.BICUBIC).resize(image.size, Resampling.NEAREST)
