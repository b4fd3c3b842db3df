"""The verb generate: one request becomes one picture in the store, once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from pleinair.tools.crops import cut
from pleinair.tools.limits import check_request
from pleinair.tools.spending import spent_on
from pleinair.tools.types import Generator, ModelFault, Picture, Request, Usage

if TYPE_CHECKING:
    from PIL.Image import Image

    from pleinair.tools.artifacts import ArtifactStore


def generate(
    request: Request,
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
        if request.repaint:
            images.append(store.open(request.repaint.picture))
        drawn = generator.generate(request, images, on_step)
        try:
            return sound(drawn, able.id)
        except ModelFault as fault:
            fault.spent = spent_on(drawn)
            raise

    return store.once(step_key(run_id, able.id, request), draw)


def cost(request: Request, *, generator: Generator, store: ArtifactStore, run_id: str = "") -> Usage:
    """Say what the picture of a request cost, also where it was drawn before a crash; nothing if untold."""
    return store.spent(step_key(run_id, generator.capabilities.id, request))


def step_key(run_id: str, engine: str, request: Request) -> str:
    """Name the step by everything that its picture depends on."""
    text = "\n".join((run_id, engine, request.model_dump_json()))
    return hashlib.sha256(text.encode()).hexdigest()


def sound(image: Image, engine: str) -> Image:
    """Refuse a flat picture: it is what a generator gives when its numbers overflowed."""
    if all(low == high for low, high in image.convert("RGB").getextrema()):  # type: ignore[misc]
        raise ModelFault(f"`{engine}` gave a picture of one flat colour.")
    return image
