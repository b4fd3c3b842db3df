"""The verb generate: one request becomes one picture in the store, once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from pleinair.tools.images.crops import cut
from pleinair.tools.storage.artifacts import spent_on
from pleinair.tools.types import (
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


def check_request(request: GenerateRequest, able: Capabilities, given: int) -> None:
    """Refuse a request that a generator cannot take, before anything is drawn or paid for.

    Args:
        request: what is asked for.
        able: what the generator declares.
        given: how many references come with it.

    Raises:
        BadInput: a size in no multiple of what is declared, more references than slots, a negative prompt or
            a box where there is none, or a box that is not inside a picture of the request's size.
    """
    check_size(request.height, request.width, able.multiple_of, f"`{able.id}`")
    if given > able.slots and not request.inpaint:  # for a box only its own concept's are shown
        raise BadInput(f"`{able.id}` takes {able.slots} references, got {given}.")
    if request.negative_prompt and not able.negative_prompt:
        raise BadInput(f"`{able.id}` has no negative prompt, got {request.negative_prompt!r}.")
    if request.reference_strength is not None and "reference_strength" not in able.accepts:
        raise BadInput(f"`{able.id}` has no reference strength, got {request.reference_strength}.")
    if request.inpaint:
        _check_repaint(request, request.inpaint, able)


def check_options(options: ImageOptions, capabilities: Capabilities) -> None:
    """Refuse options of an image that a generator does not take.

    Raises:
        BadInput: an option that is not declared, or a size in no multiple of what is declared.
    """
    accepted = [*capabilities.accepts, *(["negative_prompt"] if capabilities.negative_prompt else [])]
    for name, value in options.model_dump(exclude_none=True).items():
        if name not in accepted:
            raise BadInput(
                f"image.{name} = {value!r}: generator `{capabilities.id}` does not take it; accepted: "
                f"{', '.join(accepted) or 'none'}"
            )
    height, width = options.height or capabilities.height, options.width or capabilities.width
    check_size(height, width, capabilities.multiple_of, f"image.height and width: `{capabilities.id}`")


def check_size(height: int, width: int, unit: int, name: str) -> None:
    """Refuse a size that is no multiple of the unit, in pixels, in which a class draws."""
    if height % unit or width % unit:
        raise BadInput(f"{name} draws in multiples of {unit} pixels, asked for {width} × {height}.")


def _check_repaint(request: GenerateRequest, repaint: Inpaint, able: Capabilities) -> None:
    if not able.inpaint:
        raise BadInput(f"`{able.id}` cannot paint a box of a picture anew.")
    picture, (x0, y0, x1, y1) = repaint.picture, repaint.box
    if (picture.width, picture.height) != (request.width, request.height):
        size = f"{picture.width} × {picture.height}"
        raise BadInput(f"The picture has {size} pixels, asked for {request.width} × {request.height}.")
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise BadInput(
            f"The box {repaint.box} is not inside the picture: wanted 0 ≤ x0 < x1 ≤ 1, y likewise."
        )
    shown = sum(one.concept == repaint.concept for one in request.references)
    if shown > able.inpaint_slots:
        raise BadInput(f"`{able.id}` takes {able.inpaint_slots} references for a box, got {shown}.")


def generate(
    request: GenerateRequest,
    *,
    generator: Generator,
    store: ArtifactStore,
    run_id: str = "",
    on_step: Callable[[int, int], None],
) -> Picture:
    """Draw `request` from its references' crops, or return what this run drew for it before a crash.

    The picture is filed under run, generator and request, so a repeated step neither pays nor
    writes twice. With an empty `run_id` the same request anywhere shares one picture.

    Raises:
        BadInput: what `check_request` refuses, before anything is drawn.
        ModelFault: the generator gave a picture of one flat colour.
        Cancelled: raised by `on_step`; nothing is written.
    """
    able = generator.capabilities
    check_request(request, able, len(request.references))

    def draw() -> Image:
        images = [cut(store.open(one.picture), one.crop) for one in request.references]
        if request.inpaint:
            images.append(store.open(request.inpaint.picture))
        drawn = generator.generate(request, images, on_step)
        try:
            return _sound(drawn, able.id)
        except ModelFault as fault:
            fault.spent = spent_on(drawn)
            raise

    return store.once(_step_key(run_id, able.id, request), draw)


def cost(request: GenerateRequest, *, generator: Generator, store: ArtifactStore, run_id: str = "") -> Usage:
    """Return the cost of a request's image, also if it was made before a crash; nothing if untold."""
    return store.spent(_step_key(run_id, generator.capabilities.id, request))


def _step_key(run_id: str, engine: str, request: GenerateRequest) -> str:
    """Return the key of the step: a hash of everything that its image depends on."""
    text = "\n".join((run_id, engine, request.model_dump_json()))
    return hashlib.sha256(text.encode()).hexdigest()


def _sound(image: Image, engine: str) -> Image:
    """Refuse a flat picture: it is what a generator gives when its numbers overflowed."""
    if all(low == high for low, high in image.convert("RGB").getextrema()):  # type: ignore[misc]
        raise ModelFault(f"`{engine}` gave a picture of one flat colour.")
    return image
