"""One box of a picture painted anew: what is shown for it, its mask, and the old pixels put back around it.

The mask is the box, widened on every side by `MARGIN`. Inside the margin the new picture fades into the old
one; outside it the pixels are the old ones, whatever a model made of them. Not covered: outlines finer than a
box, and crops around it that would give it more pixels (`padding_mask_crop`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pleinair.tools.diffusion.families import Inpainting
from pleinair.tools.types import BadInput, Box, GenerateRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

MARGIN = 1 / 16  # of the picture's longer side
Size = tuple[int, int]  # width and height in pixels
Edges = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels, perhaps outside the picture


@dataclass(frozen=True, slots=True)
class Job:
    """Hold what a model is shown: the request with the references in question, and the picture painted in."""

    request: GenerateRequest
    images: Sequence[Image]
    old: Image | None = None

    def arguments(self, inpainting: Inpainting | None, unit: int) -> dict[str, Any]:
        """Give the arguments of a class that paints a box anew, none where the whole picture is drawn.

        What stood in the box was wrong, so nothing of it is left to begin from: `strength` is 1.
        """
        if self.old is None or self.request.inpaint is None or inpainting is None:
            return {}
        mask = mask_of(self.request.inpaint.box, self.old.size, unit)
        return {"image": self.old, "mask_image": mask, "strength": 1.0, **inpainting.fixed}

    def finish(self, new: Image) -> Image:
        """Put what is kept back around the box."""
        repaint = self.request.inpaint
        return put_back(self.old, new, repaint.box) if self.old and repaint else new


def parted(request: GenerateRequest, images: Sequence[Image]) -> Job:
    """Part what a generator is given into what it shows the model and the picture that is painted in.

    Without a box all is left as it is. With one, only the references of the box's concept remain: the others
    show what is kept, and would be drawn a second time.
    """
    if request.inpaint is None:
        return Job(request, images)
    *given, old = images
    pairs = zip(request.references, given, strict=True)
    shown = [(one, image) for one, image in pairs if one.concept == request.inpaint.concept]
    fewer = request.model_copy(update={"references": tuple(one for one, _ in shown)})
    return Job(fewer, [image for _, image in shown], old.convert("RGB"))


def mask_of(box: Box, size: Size, unit: int = 1) -> Image:
    """Draw the widened box white on black, out to whole units of so many pixels.

    Raises `BadInput` for a box that has fewer pixels than a unit on a side.
    """
    from PIL import Image, ImageDraw

    width, height = ((box[2] - box[0]) * size[0], (box[3] - box[1]) * size[1])
    if min(width, height) < unit:
        raise BadInput(
            f"A box of {width:.0f} × {height:.0f} pixels is too small: wanted at least {unit} × {unit}."
        )
    x0, y0, x1, y1 = _widened(box, size)
    mask = Image.new("L", size, 0)
    corners = (x0 // unit * unit, y0 // unit * unit, -(-x1 // unit) * unit - 1, -(-y1 // unit) * unit - 1)
    ImageDraw.Draw(mask).rectangle(corners, fill=255)
    return mask


def _widened(box: Box, size: Size) -> Edges:
    """Widen a box by the margin; give its edges in pixels, which may lie outside the picture."""
    (width, height), margin = size, MARGIN * max(size)
    x0, y0, x1, y1 = box
    return x0 * width - margin, y0 * height - margin, x1 * width + margin, y1 * height + margin


def put_back(old: Image, new: Image, box: Box) -> Image:
    """Put a new picture's box into the old picture, which stays pixel for pixel outside the widened box."""
    import numpy as np
    from PIL import Image

    share = new_share(box, old.size)[..., None]
    before = np.asarray(old.convert("RGB"), np.float32)
    after = np.asarray(new.convert("RGB").resize(old.size), np.float32)
    return Image.fromarray(np.rint(before + (after - before) * share).astype(np.uint8))


def new_share(box: Box, size: Size) -> NDArray[np.float32]:
    """Give the new picture's share of each pixel, [height, width]: 1 in the box, 0 outside the margin."""
    import numpy as np

    x0, y0, x1, y1 = _widened(box, size)

    def ramp(low: float, high: float, length: int) -> NDArray[np.float32]:
        centers = np.arange(length, dtype=np.float32) + 0.5
        inside = np.minimum(centers - low, high - centers) / (MARGIN * max(size))
        clipped: NDArray[np.float32] = inside.clip(0, 1).astype(np.float32)
        return clipped

    share: NDArray[np.float32] = np.minimum(ramp(y0, y1, size[1])[:, None], ramp(x0, x1, size[0])[None, :])
    return share
