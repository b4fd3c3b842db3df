"""Inpainting a part of an image: the references sent for it, its mask, and the base image restored around it.

The mask of a box is the box, widened on every side by `MARGIN`. Inside the margin the new image fades into
the base image; outside it the pixels are those of the base image, whatever a model made of them. A mask of
the user's own is taken as it is, and `pleinair.tools.generate` restores what is around it. Not covered: crops
around the part that would give it more pixels (`padding_mask_crop`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pleinair.tools.diffusion.families import Inpainting
from pleinair.tools.diffusion.references import Size
from pleinair.tools.images.masks import unit_mask
from pleinair.tools.types import BadInput, Box, GenerateRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

MARGIN = 1 / 16  # of the image's longer side
Edges = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels, possibly outside the image


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """Request with only the references that are sent, and the base image if a part of it is inpainted."""

    request: GenerateRequest
    images: Sequence[Image]
    base: Image | None = None  # RGB
    own_mask: Image | None = None  # RGBA image whose transparent part is inpainted, in place of a box

    def inpaint_arguments(self, inpainting: Inpainting | None, unit: int) -> dict[str, Any]:
        """Return the arguments of the class that inpaints; none if the whole image is generated.

        The content of the box was wrong, so none of it is kept as a start: `strength` is 1.
        """
        if self.base is None or self.request.inpaint is None or inpainting is None:
            return {}
        mask = self.draw_mask(unit)
        return {"image": self.base, "mask_image": mask, "strength": 1.0, **inpainting.arguments}

    def draw_mask(self, unit: int = 1) -> Image:
        """Return the mask, white where the image changes and black elsewhere, in whole units of pixels."""
        assert self.base is not None and self.request.inpaint is not None
        if self.own_mask:
            return unit_mask(self.own_mask, unit)
        return draw_mask(self.request.inpaint.box, self.base.size, unit)

    def finish(self, image: Image) -> Image:
        """Return a generated image, with the base image around the box if there is one."""
        inpaint = self.request.inpaint
        if self.base is None or inpaint is None or self.own_mask:
            return image
        return composite(self.base, image, inpaint.box)


def prepare(request: GenerateRequest, images: Sequence[Image]) -> PreparedRequest:
    """Separate the references to send from the image to inpaint, which is the last of `images`.

    For the box of a concept only its references remain: the others show what is kept, and would be generated
    a second time.
    """
    if (inpaint := request.inpaint) is None:
        return PreparedRequest(request, images)
    *reference_images, base = images
    pairs = zip(request.references, reference_images, strict=True)
    sent = [pair for pair in pairs if inpaint.sends(pair[0])]
    request = request.model_copy(update={"references": tuple(reference for reference, _ in sent)})
    own_mask = base if inpaint.masked else None
    return PreparedRequest(request, [image for _, image in sent], base.convert("RGB"), own_mask)


def draw_mask(box: Box, size: Size, unit: int = 1) -> Image:
    """Return a mask, white in the widened box and black elsewhere, extended to whole units of pixels.

    Raises `BadInput` for a box with fewer pixels than a unit on a side.
    """
    from PIL import Image, ImageDraw

    width, height = ((box[2] - box[0]) * size[0], (box[3] - box[1]) * size[1])
    if min(width, height) < unit:
        raise BadInput(
            f"A box of {width:.0f} × {height:.0f} pixels is too small: wanted at least {unit} × {unit}."
        )
    x0, y0, x1, y1 = _widen(box, size)
    mask = Image.new("L", size, 0)
    corners = (x0 // unit * unit, y0 // unit * unit, -(-x1 // unit) * unit - 1, -(-y1 // unit) * unit - 1)
    ImageDraw.Draw(mask).rectangle(corners, fill=255)
    return mask


def _widen(box: Box, size: Size) -> Edges:
    (width, height), margin = size, MARGIN * max(size)
    x0, y0, x1, y1 = box
    return x0 * width - margin, y0 * height - margin, x1 * width + margin, y1 * height + margin


def composite(base: Image, image: Image, box: Box) -> Image:
    """Blend the box of a new image, scaled if need be, into a base image that is unchanged elsewhere."""
    import numpy as np
    from PIL import Image

    weights = blend_weights(box, base.size)[..., None]
    before = np.asarray(base.convert("RGB"), np.float32)
    after = np.asarray(image.convert("RGB").resize(base.size), np.float32)
    return Image.fromarray(np.rint(before + (after - before) * weights).astype(np.uint8))


def blend_weights(box: Box, size: Size) -> NDArray[np.float32]:
    """Return the new image's share of each pixel, [height, width]: 1 in the box, 0 outside the margin."""
    import numpy as np

    x0, y0, x1, y1 = _widen(box, size)

    def ramp(low: float, high: float, length: int) -> NDArray[np.float32]:
        centers = np.arange(length, dtype=np.float32) + 0.5
        inside = np.minimum(centers - low, high - centers) / (MARGIN * max(size))
        clipped: NDArray[np.float32] = inside.clip(0, 1).astype(np.float32)
        return clipped

    weights: NDArray[np.float32] = np.minimum(ramp(y0, y1, size[1])[:, None], ramp(x0, x1, size[0])[None, :])
    return weights
