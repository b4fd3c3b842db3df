"""IP-Adapter: references enter a U-Net through cross-attention of their own (Ye et al., 2023).

Drives Stable Diffusion 1.5 and XL with IP-Adapter-plus, whose picture encoder is CLIP ViT-H. Several
references share the adapter; one whose place in the picture is known acts there only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from pleinair.tools.diffusion.call import scaled
from pleinair.tools.diffusion.engine import DiffusersEngine
from pleinair.tools.diffusion.families import IP_ADAPTER
from pleinair.tools.locks import serialized
from pleinair.tools.model_files.hub import Source, first_line, missing
from pleinair.tools.model_files.integrity import of_part
from pleinair.tools.model_files.variants import DATA
from pleinair.tools.types import BadInput, Box, Capabilities, GenerateRequest, Guidance, Steps

if TYPE_CHECKING:
    from PIL.Image import Image

EVERYWHERE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(eq=False)
class IpAdapter(DiffusersEngine):
    """Generate with an IP-Adapter beside the prompt; further arguments are those of `DiffusersEngine`.

    Args:
        adapter_model: hub id of the adapter, with its `adapter_revision`; or a local `adapter_folder`.
        adapter_subfolder: where the adapter's weights are.
        adapter_weight: their file, in safetensors.
        image_encoder: folder of the picture encoder; without a slash it is inside `adapter_subfolder`.
        scale: how strongly references act, 0 to 1; ImageRAG uses 0.5.
    """

    engine: ClassVar[str] = "ip_adapter"
    families = IP_ADAPTER
    parts = ("", "adapter_")

    pipeline: str = "StableDiffusionXLPipeline"
    num_inference_steps: Steps = 50
    guidance_scale: Guidance = 5.0
    adapter_model: str = ""
    adapter_folder: str = ""
    adapter_revision: str = ""
    adapter_subfolder: str = "sdxl_models"
    adapter_weight: str = "ip-adapter-plus_sdxl_vit-h.safetensors"
    image_encoder: str = "models/image_encoder"
    scale: Annotated[float, Field(ge=0, le=1)] = 0.5

    def __post_init__(self) -> None:
        """Check the adapter's settings too."""
        if not self.adapter_weight.endswith(".safetensors"):
            raise BadInput(f"generator.adapter_weight = {self.adapter_weight!r}: wanted a .safetensors file")
        self.adapter_source = Source(
            folder=self.adapter_folder,
            model=self.adapter_model,
            revision=self.adapter_revision,
            allow_branch=self.allow_branch,
            local_files_only=self.local_files_only,
            key="adapter_",
        )
        super().__post_init__()

    def identities(self) -> list[str]:
        """Name the base model and the adapter, with how strongly it acts."""
        return [*super().identities(), f"{self.adapter_source.id}×{self.scale:g}"]

    def open(self, folder: Path, dtype: Any) -> Any:
        """Load the base model and hang the adapter into it."""
        pipeline = super().open(folder, dtype)
        try:
            serialized(pipeline.load_ip_adapter)(
                str(self._fetch_adapter()),
                subfolder=self.adapter_subfolder,
                weight_name=self.adapter_weight,
                image_encoder_folder=self.image_encoder,
                local_files_only=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:  # also where its sizes do not fit
            name = self.adapter_source.id
            raise BadInput(f"The IP-Adapter {name!r} cannot be loaded: {first_line(error)}") from error
        return pipeline

    def conditioning(
        self, pipeline: Any, request: GenerateRequest, images: Sequence[Image]
    ) -> dict[str, Any]:
        """Give the references to the adapter; without any it is switched off, and told of a blank one."""
        if not images:
            pipeline.set_ip_adapter_scale(0.0)
            return {"ip_adapter_image": [[_blank()]]}
        given = {"ip_adapter_image": [[scaled(image, self.reference_size) for image in images]]}
        boxes = [reference.box for reference in request.references]
        if not any(boxes):
            pipeline.set_ip_adapter_scale(self.scale)
            return given
        pipeline.set_ip_adapter_scale([[self.scale] * len(images)])
        masks = place_masks(boxes, request.height, request.width)
        return {**given, "cross_attention_kwargs": {"ip_adapter_masks": [masks]}}

    def _declared(self) -> Capabilities:
        return super()._declared().model_copy(update={"boxes": True})

    def _fetch_adapter(self) -> Path:
        files = adapter_files(self.adapter_subfolder, self.adapter_weight, self.image_encoder)
        inside = encoder_folder(self.adapter_subfolder, self.image_encoder)
        return self.adapter_source.fetch(
            files, faults=lambda folder: [*missing(folder, files), *of_part(folder / inside, inside)]
        )


def adapter_files(subfolder: str, weight: str, encoder: str) -> tuple[str, ...]:
    """Give the patterns of what is fetched of an adapter: its weights and its picture encoder."""
    inside = encoder_folder(subfolder, encoder)
    return (f"{subfolder}/{weight}", *(f"{inside}/{pattern}" for pattern in DATA))


def encoder_folder(subfolder: str, encoder: str) -> str:
    """Give the folder of an adapter's picture encoder; without a slash it is inside `subfolder`."""
    return encoder if "/" in encoder else f"{subfolder}/{encoder}"


def _blank() -> Image:
    """Make a grey picture, for an adapter that must be given one."""
    from PIL import Image

    return Image.new("RGB", (32, 32), "grey")


def place_masks(boxes: Sequence[Box | None], height: int, width: int) -> Any:
    """Draw each reference's place as a mask, [1, references, height, width]; all of it where unknown."""
    from diffusers.image_processor import IPAdapterMaskProcessor
    from PIL import Image, ImageDraw

    masks = []
    for box in boxes:
        x0, y0, x1, y1 = box or EVERYWHERE
        mask = Image.new("L", (width, height), 0)
        ImageDraw.Draw(mask).rectangle((x0 * width, y0 * height, x1 * width - 1, y1 * height - 1), fill=255)
        masks.append(mask)
    made = IPAdapterMaskProcessor().preprocess(masks, height=height, width=width)
    return made.reshape(1, len(masks), height, width)
