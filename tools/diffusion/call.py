"""One call of a pipeline: watched at each step, with fixed noise, and its picture checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pleinair.tools.callbacks import PreviewCallback
from pleinair.tools.diffusion.families import Family
from pleinair.tools.diffusion.previews import Previews
from pleinair.tools.types import BadInput, GenerateRequest, ModelFault, OnStep, Refused

if TYPE_CHECKING:
    from PIL.Image import Image


def _watched(on_step: OnStep, request: GenerateRequest, engine: str) -> Callable[..., dict[str, Any]]:
    """Make a callback for a pipeline that reports each step and stops at the first broken number.

    A `PreviewCallback` is shown previews too, never of the last step, whose picture comes anyway.
    """
    previews = (
        Previews(on_step, (request.width, request.height)) if isinstance(on_step, PreviewCallback) else None
    )

    def after_step(pipeline: Any, step: int, _: Any, values: dict[str, Any]) -> dict[str, Any]:
        if not values["latents"].isfinite().all():
            raise ModelFault(f"`{engine}` overflowed at step {step + 1}.", "Try dtype = 'float32'.")
        # some schedulers take more steps than were asked for
        total = getattr(pipeline, "num_timesteps", None) or request.num_inference_steps
        on_step(step + 1, total)
        if previews and step + 1 < total:
            previews(pipeline, values["latents"])
        return values

    return after_step


def call_arguments(request: GenerateRequest, family: Family, on_step: OnStep, engine: str) -> dict[str, Any]:
    """Put a request into the arguments of a class's call; references and options are not among them."""
    import torch

    call: dict[str, Any] = {
        "prompt": request.prompt,
        "height": request.height,
        "width": request.width,
        "num_inference_steps": request.num_inference_steps,
        # noise of the CPU's generator is the same on every device
        "generator": torch.Generator("cpu").manual_seed(request.seed),
        "output_type": "np",
        "callback_on_step_end": _watched(on_step, request, engine),
    }
    if family.guidance:
        call[family.guidance] = request.guidance_scale
    if family.negative_prompt:
        call["negative_prompt"] = request.negative_prompt or family.blank
    if family.area:
        call[family.area] = request.height * request.width
    return call


@contextmanager
def seeded(pipeline: Any, seed: int) -> Iterator[None]:
    """Give a pipeline's autoencoder noise of its own for the time of a call.

    Some classes (OmniGen, SD3's ControlNet) let it sample a reference without a generator, that is from
    torch's noise, which every thread of the process draws from.
    """
    import torch

    encode, own = pipeline.vae.encode, "encode" in vars(pipeline.vae)
    noise = torch.Generator(pipeline._execution_device).manual_seed(seed)

    def encoded(*arguments: Any, **named: Any) -> Any:
        output = encode(*arguments, **named)
        if spread := getattr(output, "latent_dist", None):
            sample = spread.sample
            spread.sample = lambda generator=None: sample(generator or noise)
        return output

    pipeline.vae.encode = encoded
    try:
        yield
    finally:
        if own:  # somebody has set it on this very one
            pipeline.vae.encode = encode
        else:
            del pipeline.vae.encode


def to_picture(pipeline: Any, output: Any, engine: str) -> Image:
    """Read the picture of an output; raise `ModelFault` for broken numbers, `Refused` for a blocked one."""
    import numpy as np

    if any(getattr(output, "nsfw_content_detected", None) or ()):
        raise Refused(f"The safety checker of `{engine}` blocked the picture.")
    if not np.isfinite(output.images).all():
        raise ModelFault(f"`{engine}` decoded to broken numbers.", "Try dtype = 'float32'.")
    picture: Image = pipeline.image_processor.numpy_to_pil(output.images)[0]
    return picture


def scaled(image: Image, longest: int, shortest: int = 1) -> Image:
    """Scale a reference down, never up: its tokens cost as much as the picture's own.

    Raises `BadInput` where a side would have fewer pixels than `shortest`.
    """
    small = image.convert("RGB")
    small.thumbnail((longest, longest))
    if min(small.size) < shortest:
        raise BadInput(
            f"A reference of {image.width} × {image.height} is too narrow.", "Crop it nearer a square."
        )
    return small
