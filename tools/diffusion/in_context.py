"""In-context conditioning: references stand beside the prompt in the transformer's sequence.

Runs `Flux2KleinPipeline` (FLUX.2 klein, and the pocket generator, which has the same classes).
Not covered: offloading, compilation, and reuse of the references' keys and values.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleinair.tools.types import BadInput, Capabilities, Request
from pleinair.tools.weights import checksum, locate

if TYPE_CHECKING:
    from PIL.Image import Image


class InContext:
    """Generate with a `Flux2KleinPipeline` folder; one job at a time, loaded at the first.

    Args:
        folder: a local pipeline folder, or `pocket/generator` for the one in this package.
        device: a torch device.
        slots: references that may be given at once.
        height: of the pictures in pixels, like `width`.
        guidance_scale: classifier-free guidance; 1 is off.
        reference_size: longest side in pixels that a reference is scaled down to.
        max_sequence_length: text tokens.
        text_encoder_out_layers: hidden states of the text encoder that are stacked.
    """

    def __init__(
        self,
        folder: str,
        *,
        device: str = "cpu",
        slots: int = 4,
        height: int = 1024,
        width: int = 1024,
        num_inference_steps: int = 4,
        guidance_scale: float = 1.0,
        reference_size: int = 512,
        max_sequence_length: int = 512,
        text_encoder_out_layers: Sequence[int] = (9, 18, 27),
    ) -> None:
        """Check the folder and remember how to call it; raise `BadInput` where it is no pipeline."""
        self._folder = locate(folder)
        if not (self._folder / "model_index.json").is_file():
            raise BadInput(f"No diffusers pipeline in {str(self._folder)!r}: it has no model_index.json.")
        self._device = device
        self._reference_size = reference_size
        self._text = {
            "max_sequence_length": max_sequence_length,
            "text_encoder_out_layers": tuple(text_encoder_out_layers),
        }
        self._lock = threading.Lock()
        self._pipeline: Any = None
        self.capabilities = Capabilities(
            id=f"in_context:{folder}@{checksum(self._folder)}",
            slots=slots,
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )

    def generate(
        self, request: Request, images: Sequence[Image], on_step: Callable[[int, int], None]
    ) -> Image:
        """Draw one picture; the same request on the same machine gives the same pixels.

        Args:
            request: prompt, size, steps, guidance and seed.
            images: the references' pictures, in the order of `request.references`.
            on_step: told the steps done and the steps in all; what it raises passes through.
        """
        with self._lock:
            return self._draw(request, images, on_step)

    def _draw(self, request: Request, images: Sequence[Image], on_step: Callable[[int, int], None]) -> Image:
        import torch

        pipeline = self._load()
        total = request.num_inference_steps

        def after_step(_: Any, step: int, __: Any, values: dict[str, Any]) -> dict[str, Any]:
            on_step(step + 1, total)
            return values

        # a scheduler keeps state between calls, so each call gets its own
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        output = pipeline(
            prompt=request.prompt,
            image=[self._scaled(image) for image in images] or None,
            height=request.height,
            width=request.width,
            num_inference_steps=total,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator(self._device).manual_seed(request.seed),
            callback_on_step_end=after_step,
            **self._text,
        )
        picture: Image = output.images[0]
        return picture

    def _load(self) -> Any:
        if self._pipeline is None:
            self._pipeline = load(self._folder, self._device)
        return self._pipeline

    def _scaled(self, image: Image) -> Image:
        """Scale a reference down, never up: its tokens cost as much as the picture's own."""
        scaled = image.convert("RGB")
        scaled.thumbnail((self._reference_size, self._reference_size))
        return scaled


def load(folder: Path, device: str) -> Any:
    """Load a pipeline from local safetensors only, without its progress bar."""
    import torch
    from diffusers import Flux2KleinPipeline

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    pipeline = Flux2KleinPipeline.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True
    )
    pipeline.image_processor = small_image_processor(pipeline.vae_scale_factor)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def small_image_processor(scale_factor: int) -> Any:
    """Make the pipeline's image processor without its floor of 64 pixels a side.

    The floor guards models trained on megapixels; the pocket generator's references are 32 × 32.
    """
    from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor

    class SmallImageProcessor(Flux2ImageProcessor):  # type: ignore[misc]
        @staticmethod
        def check_image_input(image: Image, *_: Any) -> Image:
            return image

    return SmallImageProcessor(vae_scale_factor=scale_factor * 2)
