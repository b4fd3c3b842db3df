"""Masks of edits: images whose fully transparent pixels, those of alpha 0, are what changes.

This is the convention of OpenAI's images API. Pixels that are only partly transparent stay. Not covered:
masks in black and white, whose meaning differs from program to program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleinair.tools.types import BadInput, Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Pixels = NDArray[np.bool_]  # [height, width]

FADE = 1 / 16  # of the longer side: the most over which the new image fades in
_REACH = 2 * FADE  # how far the colours around a transparent part extend into it, fainter from half on
_REMEDY = "Make the part that is to change fully transparent (alpha 0), and leave the rest opaque."


def with_mask(base: Image, mask: Image) -> Image:
    """Return an RGB image as RGBA: alpha 0 where the alpha of an RGBA mask is 0, else 255.

    Raises `BadInput` for images of two sizes, and as `masked_box` does.
    """
    if base.size != mask.size:
        raise BadInput(
            f"mask: {mask.width} × {mask.height} pixels; must have those of the base, "
            f"{base.width} × {base.height}",
            field="mask",
        )
    return _checked(base, mask, "mask")


def own_mask(image: Image) -> Image:
    """Return an RGBA image whose transparent part has the colours around it, and all else alpha 255.

    What is partly transparent is laid on white. Raises `BadInput` as `masked_box` does.
    """
    from PIL import Image, ImageFilter

    hole = masked(image)
    white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    white.putalpha(Image.fromarray(~hole))
    around = white.convert("RGBa").filter(ImageFilter.BoxBlur(max(image.size) * _REACH)).convert("RGBA")
    around.putalpha(around.getchannel("A").point(lambda share: min(4 * share, 255)))
    filled = Image.alpha_composite(Image.new("RGBA", image.size, "white"), around).convert("RGB")
    rgb = Image.composite(filled, white.convert("RGB"), Image.fromarray(hole))
    return _checked(rgb, image, "base")


def _checked(base: Image, mask: Image, field: str) -> Image:
    from PIL import Image

    image = base.convert("RGB")
    image.putalpha(Image.fromarray(~masked(mask)).convert("L"))
    masked_box(image, field)
    return image


def masked(image: Image) -> Pixels:
    """Return where an image is fully transparent; nowhere if it has no alpha."""
    import numpy as np

    changes: Pixels = np.asarray(image.convert("RGBA").getchannel("A")) == 0
    return changes


def masked_box(image: Image, field: str = "base", note: str = "") -> Box:
    """Return the box around what changes; raises `BadInput` where that is nothing or all of the image.

    Args:
        image: whose fully transparent pixels change.
        field: what it is, for the error.
        note: what was done with it, for the error.
    """
    import numpy as np

    changes = masked(image)
    if not changes.any():
        message = f"{field}{note}: no pixel of it is fully transparent, so nothing would change"
        raise BadInput(message, _REMEDY, field=field)
    if changes.all():
        raise BadInput(
            f"{field}{note}: all of it is fully transparent, so nothing would stay",
            "Leave the part that is to stay opaque, or generate a whole image, without a base.",
            field=field,
        )
    (y0, y1), (x0, x1) = (np.flatnonzero(changes.any(axis))[[0, -1]] for axis in (1, 0))
    width, height = image.size
    return float(x0 / width), float(y0 / height), float((x1 + 1) / width), float((y1 + 1) / height)


def fitted(image: Image, size: tuple[int, int]) -> Image:
    """Scale an RGBA image of `with_mask` to a size; its mask stays sharp.

    Raises `BadInput` where a tiny mask is lost.
    """
    from PIL import Image

    if image.size == size:
        return image
    scaled = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    scaled.putalpha(image.getchannel("A").resize(size, Image.Resampling.NEAREST))
    masked_box(scaled, note=f", scaled to {size[0]} × {size[1]} pixels")
    return scaled


def unit_mask(image: Image, unit: int) -> Image:
    """Return the mask as a pipeline takes it: white in every `unit` × `unit` pixels that change in part."""
    import numpy as np
    from PIL import Image

    height, width = image.height, image.width
    blocks = masked(image).reshape(height // unit, unit, width // unit, unit).any((1, 3))
    return Image.fromarray(np.kron(blocks, np.full((unit, unit), 255)).astype(np.uint8))


def blend(base: Image, image: Image) -> Image:
    """Paste a new image, scaled if need be, into the transparent part of a base; all else stays to the bit.

    It fades in from the edge inwards over `FADE`, or over half of where the mask is deepest if that is less.
    """
    import numpy as np
    from PIL import Image

    weights = fade_weights(masked(base))[..., None]
    before = np.asarray(base.convert("RGB"), np.float32)
    after = np.asarray(image.convert("RGB").resize(base.size), np.float32)
    return Image.fromarray(np.rint(before + (after - before) * weights).astype(np.uint8))


def fade_weights(changes: Pixels) -> NDArray[np.float32]:
    """Return the new image's share of each pixel: 0 outside the mask, rising to 1 from its edge inwards."""
    import numpy as np

    distance = _distance(changes)
    width = min(FADE * max(changes.shape), distance.max() / 2)
    weights: NDArray[np.float32] = ((distance - 0.5) / width).clip(0, 1).astype(np.float32)
    return weights


def _distance(changes: Pixels) -> NDArray[np.float32]:
    """Return the steps along rows and columns to the nearest pixel that stays; 0 where it does."""
    import numpy as np

    distance = np.where(changes, np.float32(sum(changes.shape)), np.float32(0))
    for axis, length in enumerate(changes.shape):
        place = np.arange(length, dtype=np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        for forward in (True, False):
            flipped = distance if forward else np.flip(distance, axis)
            nearest = np.minimum.accumulate(flipped - place, axis) + place
            distance = nearest if forward else np.flip(nearest, axis)
    return distance
