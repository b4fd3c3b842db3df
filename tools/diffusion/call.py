"""One call of a pipeline: its arguments, a callback at each step, fixed noise, and the image checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pleinair.tools.callbacks import PreviewCallback
from pleinair.tools.diffusion.families import Family
from pleinair.tools.diffusion.previews import Previews
from pleinair.tools.types import GenerateRequest, ModelFault, OnStep, Refused

if TYPE_CHECKING:
    from PIL.Image import Image


def _step_callback(on_step: OnStep, request: GenerateRequest, id: str) -> Callable[..., dict[str, Any]]:
    """Return a callback of a pipeline that reports each step and fails at the first non-finite number.

    A `PreviewCallback` receives previews too, except of the last step, whose image follows anyway.
    """
    size = request.width, request.height
    previews = Previews(on_step, size) if isinstance(on_step, PreviewCallback) else None

    def after_step(pipeline: Any, step: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if not tensors["latents"].isfinite().all():
            raise ModelFault(f"`{id}` overflowed at step {step + 1}.", "Try generator.dtype = 'float32'.")
        # some schedulers take more steps than requested
        total = getattr(pipeline, "num_timesteps", None) or request.num_inference_steps
        on_step(step + 1, total)
        if previews and step + 1 < total:
            previews(pipeline, tensors["latents"])
        return tensors

    return after_step


def call_arguments(request: GenerateRequest, family: Family, on_step: OnStep, id: str) -> dict[str, Any]:
    """Convert a request into the arguments of a class's call, references and options excluded.

    `id` is the generator's, for error messages.
    """
    import torch

    arguments: dict[str, Any] = {
        "prompt": request.prompt,
        "height": request.height,
        "width": request.width,
        "num_inference_steps": request.num_inference_steps,
        # noise of the CPU's generator is the same on every device
        "generator": torch.Generator("cpu").manual_seed(request.seed),
        "output_type": "np",
        "callback_on_step_end": _step_callback(on_step, request, id),
    }
    if family.guidance:
        arguments[family.guidance] = request.guidance_scale
    if family.negative_prompt:
        arguments["negative_prompt"] = request.negative_prompt or family.default_negative_prompt
    if family.area:
        arguments[family.area] = request.height * request.width
    return arguments


@contextmanager
def seeded_encoding(pipeline: Any, seed: int) -> Iterator[None]:
    """Let a pipeline's autoencoder sample from a generator of its own during a call.

    Some classes (OmniGen, SD3's ControlNet) let it sample a reference without a generator, that is from
    torch's global noise, which every thread of the process consumes.
    """
    import torch

    encode, is_instance_attribute = pipeline.vae.encode, "encode" in vars(pipeline.vae)
    noise = torch.Generator(pipeline._execution_device).manual_seed(seed)

    def encode_seeded(*args: Any, **kwargs: Any) -> Any:
        output = encode(*args, **kwargs)
        if distribution := getattr(output, "latent_dist", None):
            sample = distribution.sample
            distribution.sample = lambda generator=None: sample(generator or noise)
        return output

    pipeline.vae.encode = encode_seeded
    try:
        yield
    finally:
        if is_instance_attribute:
            pipeline.vae.encode = encode
        else:
            del pipeline.vae.encode


def output_image(pipeline: Any, output: Any, id: str) -> Image:
    """Return the image of an output; raise `ModelFault` for non-finite numbers, `Refused` if blocked."""
    import numpy as np

    if any(getattr(output, "nsfw_content_detected", None) or ()):
        raise Refused(f"The safety checker of `{id}` blocked the image.")
    if not np.isfinite(output.images).all():
        raise ModelFault(f"`{id}` decoded to non-finite numbers.", "Try generator.dtype = 'float32'.")
    image: Image = pipeline.image_processor.numpy_to_pil(output.images)[0]
    return image
