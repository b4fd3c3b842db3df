"""Generate the image of a request and store it, once for each run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pleinair.tools.images.crops import cut, is_box
from pleinair.tools.images.masks import blend
from pleinair.tools.storage.artifacts import charged, original_of, spent_on, with_original
from pleinair.tools.types import (
    SIZE_FIELD,
    BadInput,
    Capabilities,
    GenerateRequest,
    Generator,
    ImageOptions,
    Inpaint,
    ModelFault,
    Picture,
    Usage,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.storage.artifacts import ArtifactStore


def check_request(request: GenerateRequest, capabilities: Capabilities, references: int) -> None:
    """Refuse a request that a generator cannot take, before anything is generated or paid for.

    Args:
        request: of one image.
        capabilities: of the generator.
        references: number of reference images that come with it.

    Raises:
        BadInput: the size is no multiple of the declared unit or too large, there are more references than
            slots, the generator takes no negative prompt, reference strength or box, or the box is not inside
            an image of the request's size.
    """
    _check_size(request.height, request.width, capabilities, f"`{capabilities.id}`")
    if references > capabilities.slots and not request.inpaint:  # which has slots of its own
        raise BadInput(f"`{capabilities.id}` takes {capabilities.slots} references, got {references}.")
    if request.negative_prompt and not capabilities.negative_prompt:
        raise BadInput(f"`{capabilities.id}` has no negative prompt, got {request.negative_prompt!r}.")
    if request.reference_strength is not None and "reference_strength" not in capabilities.accepts:
        raise BadInput(f"`{capabilities.id}` has no reference strength, got {request.reference_strength}.")
    if request.inpaint:
        _check_inpaint(request, request.inpaint, capabilities)


def check_options(options: ImageOptions, capabilities: Capabilities) -> None:
    """Refuse options of an image that a generator does not take.

    Raises:
        BadInput: the option is not declared, or the size is no multiple of the declared unit, or too large.
    """
    accepted = [*capabilities.accepts, *(["negative_prompt"] if capabilities.negative_prompt else [])]
    for name, value in options.model_dump(exclude_none=True).items():
        if name not in accepted and value != "":  # an empty negative prompt is none
            raise BadInput(
                f"image.{name} = {value!r}: generator `{capabilities.id}` does not take it; accepted: "
                f"{', '.join(accepted) or 'none'}",
                field=f"image.{name}",
            )
    height, width = options.height or capabilities.height, options.width or capabilities.width
    _check_size(height, width, capabilities, f"image.height and width: `{capabilities.id}`")


def check_size(height: int, width: int, unit: int, name: str) -> None:
    """Refuse a size that is no multiple of a generator's unit, in pixels."""
    if height % unit or width % unit:
        message = f"{name} generates multiples of {unit} pixels, got {width} × {height}."
        raise BadInput(message, field=SIZE_FIELD)


def _check_size(height: int, width: int, capabilities: Capabilities, name: str) -> None:
    check_size(height, width, capabilities.multiple_of, name)
    most = capabilities.max_pixels
    if most is not None and height * width > most:
        side = math.isqrt(most) // capabilities.multiple_of * capabilities.multiple_of
        raise BadInput(
            f"{name} generates at most {most:,} pixels, such as {side} × {side}, got {width} × {height}.",
            field=SIZE_FIELD,
        )


def _check_inpaint(request: GenerateRequest, inpaint: Inpaint, capabilities: Capabilities) -> None:
    if not capabilities.inpaint:
        raise BadInput(f"`{capabilities.id}` cannot inpaint.")
    picture = inpaint.picture
    if (picture.width, picture.height) != (request.width, request.height):
        size = f"{picture.width} × {picture.height}"
        raise BadInput(f"The image to inpaint has {size} pixels; must be {request.width} × {request.height}.")
    if not is_box(inpaint.box):
        raise BadInput(f"box {inpaint.box}: must be 0 ≤ x0 < x1 ≤ 1, and y likewise.")
    count = sum(map(inpaint.sends, request.references))
    if count > capabilities.inpaint_slots:
        slots, part = capabilities.inpaint_slots, "mask" if inpaint.masked else "box"
        raise BadInput(f"`{capabilities.id}` takes {slots} references for a {part}, got {count}.")


def generate(
    request: GenerateRequest,
    *,
    generator: Generator,
    store: ArtifactStore,
    run_id: str = "",
    identity: str = "",
    on_step: Callable[[int, int], None],
) -> Picture:
    """Generate the image of a request, or return the one that this run made of it before a crash.

    It is stored under run, generator and request, so a repeated step neither pays nor writes twice. With an
    empty `run_id` equal requests of all runs share an image. `identity` replaces the generator's id there.

    Raises:
        BadInput: as of `check_request`, before anything is generated.
        ModelFault: the generator returned an image of one flat colour, or no image.
        Cancelled: raised by `on_step`; nothing is written.
    """
    capabilities = generator.capabilities
    check_request(request, capabilities, len(request.references))

    def make() -> Image:
        images = [cut(store.open(item.picture), item.crop) for item in request.references]
        inpaint = request.inpaint
        if inpaint:
            images.append(store.open(inpaint.picture, alpha=inpaint.masked))
        image = _as_image(generator.generate(request, images, on_step), capabilities.id)
        if inpaint and inpaint.masked:
            base = store.open(inpaint.picture, alpha=True)  # a generator may have drawn on the one it got
            blended = charged(blend(base, image), spent_on(image))
            image = with_original(blended, original_of(image))
        if all(low == high for low, high in image.convert("RGB").getextrema()):  # type: ignore[misc]
            fault = ModelFault(
                f"`{capabilities.id}` returned an image of one flat colour, {image.width} × {image.height}",
                "A generator must return an image that shows something.",
            )
            fault.spent = spent_on(image)
            raise fault
        return image

    return store.once(_step_key(run_id, identity or capabilities.id, request), make)


def _as_image(value: Any, generator_id: str) -> Image:
    """Return what a generator returned as an image.

    Accepted are a PIL image and an array [height, width], [height, width, 1, 3 or 4], or a batch of one such:
    uint8, or floats from 0 to 1 as of diffusers. Raises `ModelFault` for anything else.
    """
    import numpy as np
    from PIL import Image

    if isinstance(value, Image.Image):
        return value
    array = value[0] if isinstance(value, np.ndarray) and value.ndim == 4 and len(value) == 1 else value
    if isinstance(array, np.ndarray) and array.size and _is_image(array.shape):
        if np.issubdtype(array.dtype, np.floating) and array.min() >= 0 and array.max() <= 1:
            array = (array * 255).round().astype(np.uint8)
        if array.dtype == np.uint8:
            return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)
    raise ModelFault(
        f"`{generator_id}` returned {_described(value)}; wanted a PIL image, or an array [height, width, 3] "
        "of uint8 or of floats from 0 to 1"
    )


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))


def _described(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return f"a {type(value).__name__}" + (f" {list(shape)} of {dtype}" if shape is not None else "")


def cost(request: GenerateRequest, *, generator: Generator, store: ArtifactStore, run_id: str = "") -> Usage:
    """Return the cost of a request's image, also of one made before a crash; zeros if it is not reported."""
    return store.spent(_step_key(run_id, generator.capabilities.id, request))


def _step_key(run_id: str, generator_id: str, request: GenerateRequest) -> str:
    """Return the key of the step: a hash of everything that its image depends on."""
    text = "\n".join((run_id, generator_id, request.model_dump_json()))
    return hashlib.sha256(text.encode()).hexdigest()
