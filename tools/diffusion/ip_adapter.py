"""IP-Adapter: references enter a U-Net through cross-attention of their own (Ye et al., 2023).

Drives Stable Diffusion 1.5 and XL with IP-Adapter-plus, whose image encoder is CLIP ViT-H. Several references
share the adapter; one with a box acts inside it only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pleinair.tools.diffusion.engine import DiffusersEngine
from pleinair.tools.diffusion.families import IP_ADAPTER
from pleinair.tools.diffusion.references import scale_reference
from pleinair.tools.diffusion.settings import DiffusersSettings
from pleinair.tools.locks import serialized
from pleinair.tools.model_files.hub import first_line, missing_files
from pleinair.tools.model_files.integrity import find_part_faults
from pleinair.tools.model_files.variants import PART_FILES
from pleinair.tools.types import BadInput, Box, GenerateRequest, Guidance, Steps

if TYPE_CHECKING:
    from PIL.Image import Image

FULL_BOX: Box = (0.0, 0.0, 1.0, 1.0)


class IpAdapterSettings(DiffusersSettings):
    """Settings of `IpAdapter`."""

    families = IP_ADAPTER

    pipeline: str = "StableDiffusionXLPipeline"
    num_inference_steps: Steps = 50
    guidance_scale: Guidance = 5.0
    adapter_folder: str = Field(default="", description="local folder of the adapter")
    adapter_model: str = Field(default="", description="hub id of the adapter instead, with its revision")
    adapter_revision: str = Field(default="", description="commit of the adapter's hub id")
    adapter_subfolder: str = Field(default="sdxl_models", description="folder of the adapter's weights")
    adapter_weight: str = Field(
        default="ip-adapter-plus_sdxl_vit-h.safetensors", pattern=r"\.safetensors$", description="their file"
    )
    image_encoder: str = Field(
        default="models/image_encoder",
        description="folder of its image encoder; in the subfolder if without a slash",
    )
    scale: float = Field(default=0.5, ge=0, le=1, description="strength of the references; ImageRAG uses 0.5")

    @property
    def encoder_folder(self) -> str:
        """Return the folder of the image encoder inside the adapter's."""
        is_path = "/" in self.image_encoder
        return self.image_encoder if is_path else f"{self.adapter_subfolder}/{self.image_encoder}"

    @property
    def adapter_files(self) -> tuple[str, ...]:
        """Return the patterns of the adapter's files: its weights and its image encoder."""
        encoder_files = (f"{self.encoder_folder}/{pattern}" for pattern in PART_FILES)
        return (f"{self.adapter_subfolder}/{self.adapter_weight}", *encoder_files)


class IpAdapter(DiffusersEngine):
    """Generator with an IP-Adapter beside the prompt."""

    backend = "ip_adapter"
    prefixes = ("", "adapter_")
    boxes = True
    has_strength = True
    settings_model = IpAdapterSettings
    settings: IpAdapterSettings

    def __init__(self, folder: str = "", **settings: Any) -> None:
        super().__init__(folder, **settings)
        if not self.loaded:
            self.adapter_source = self.settings.source("adapter_")

    def identities(self) -> list[str]:
        """List the base model and the adapter with its strength."""
        adapter = "IP-Adapter" if self.loaded else self.adapter_source.id
        return [*super().identities(), f"{adapter}×{self.settings.scale:g}"]

    def open(self, folder: Path, dtype: Any) -> Any:
        """Load the base model and the adapter into it."""
        pipeline, settings = super().open(folder, dtype), self.settings
        try:
            serialized(pipeline.load_ip_adapter)(
                str(self._fetch_adapter()),
                subfolder=settings.adapter_subfolder,
                weight_name=settings.adapter_weight,
                image_encoder_folder=settings.image_encoder,
                local_files_only=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:  # also if its sizes do not fit
            raise BadInput(
                f"The IP-Adapter {self.adapter_source.id!r} cannot be loaded: {first_line(error)}"
            ) from error
        return pipeline

    def condition(self, pipeline: Any, request: GenerateRequest, images: Sequence[Image]) -> dict[str, Any]:
        """Return the references for the adapter; without any it is switched off and gets a grey image."""
        strength = request.reference_strength
        scale = self.settings.scale if strength is None else strength
        if not images:
            from PIL import Image

            pipeline.set_ip_adapter_scale(0.0)
            return {"ip_adapter_image": [[Image.new("RGB", (32, 32), "grey")]]}
        scaled = [scale_reference(image, self.settings.reference_size) for image in images]
        boxes = [reference.box for reference in request.references]
        if not any(boxes):
            pipeline.set_ip_adapter_scale(scale)
            return {"ip_adapter_image": [scaled]}
        pipeline.set_ip_adapter_scale([[scale] * len(images)])
        masks = box_masks(boxes, request.height, request.width)
        return {"ip_adapter_image": [scaled], "cross_attention_kwargs": {"ip_adapter_masks": [masks]}}

    def _fetch_adapter(self) -> Path:
        files, encoder = self.settings.adapter_files, self.settings.encoder_folder

        def find_faults(folder: Path) -> list[str]:
            return [*missing_files(folder, files), *find_part_faults(folder / encoder, encoder)]

        return self.adapter_source.require_files(files, find_faults=find_faults)


def box_masks(boxes: Sequence[Box | None], height: int, width: int) -> Any:
    """Draw each reference's box as a mask, [1, references, height, width]; the whole image if it has none."""
    from diffusers.image_processor import IPAdapterMaskProcessor
    from PIL import Image, ImageDraw

    masks = []
    for box in boxes:
        x0, y0, x1, y1 = box or FULL_BOX
        mask = Image.new("L", (width, height), 0)
        ImageDraw.Draw(mask).rectangle((x0 * width, y0 * height, x1 * width - 1, y1 * height - 1), fill=255)
        masks.append(mask)
    tensor = IPAdapterMaskProcessor().preprocess(masks, height=height, width=width)
    return tensor.reshape(1, len(masks), height, width)
