"""Base images of edits: read with their masks, fitted to the generator, refused where none can use them."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pleinair.app.engines import declared_capabilities
from pleinair.app.settings import Settings, profiles, read_profile
from pleinair.tools import registry
from pleinair.tools.types import MAX_SIDE, SIZE_FIELD, BadInput, Capabilities, ImageOptions, PleinairError

if TYPE_CHECKING:
    from PIL.Image import Image

BASE_FIELD = "base"  # of a graph's input
ImageFile = str | Path | bytes  # a file, or its content
Size = tuple[int, int]  # width and height in pixels
_STRETCH = 0.05  # by which the ratio of the sides may change


def has_input(graph: str, field: str) -> bool:
    """Return whether a graph's input has a field."""
    return field in registry.resolve("graph", graph).get_input_jsonschema().get("properties", {})


def require_edits(graph: str, settings: Settings) -> None:
    """Raise `BadInput` for a graph without base images, or a generator that cannot inpaint."""
    if not has_input(graph, BASE_FIELD):
        graphs = ", ".join(name for name in registry.names("graph") if has_input(name, BASE_FIELD))
        raise BadInput(f"base: graph {graph!r} takes no base image; these do: {graphs}", field="graph")
    capabilities = declared_capabilities(settings)
    if not capabilities.inpaint:
        able = ", ".join(name for name in profiles() if _inpaints(name))
        raise BadInput(
            f"base: generator `{capabilities.id}` cannot inpaint; profiles that can: {able or 'none'}",
            field="base",
        )


def _inpaints(profile: str) -> bool:
    """Return whether the generator of a profile, as it is in its file, can inpaint."""
    with suppress(PleinairError, ValidationError, ImportError):
        return declared_capabilities(Settings.model_validate(read_profile(profile))).inpaint
    return False


def require_image_file(file: Any, name: str, field: str) -> None:
    """Raise `BadInput` for what is neither a path nor the content of a file, such as a PIL image."""
    if not isinstance(file, (str, Path, bytes)):
        message = f"{name}: {type(file).__name__}; must be the path of a file, or its bytes"
        raise BadInput(message, "Save an image as a PNG first.", field=field)


def read_base(base: ImageFile | None, mask: ImageFile | None) -> Image:
    """Return a base image as RGBA, of which alpha 0 is what changes; writes nothing.

    Args:
        base: image; without a mask its own fully transparent pixels are what changes.
        mask: image of the same size, whose fully transparent pixels are what changes.

    Raises:
        BadInput: a file is no image, the sizes differ, or nothing or everything would change.
    """
    from pleinair.tools.images.masks import own_mask, with_mask

    if base is None:
        remedy = "Name the image whose part is to change as the base."
        raise BadInput("mask: without a base", remedy, field="mask")
    if mask is None:
        return own_mask(_read(base, "base", alpha=True))
    return with_mask(_read(base, "base", alpha=False), _read(mask, "mask", alpha=True))


def _read(file: ImageFile, option: str, *, alpha: bool) -> Image:
    from pleinair.tools.images.decoding import ReadOptions
    from pleinair.tools.images.reading import BadPicture
    from pleinair.tools.images.sandbox import read_untrusted

    require_image_file(file, option, option)
    name = "" if isinstance(file, bytes) else f" {str(file)!r}"
    try:
        source = file if isinstance(file, bytes) else Path(file).expanduser()
        return read_untrusted(source, ReadOptions(alpha=alpha))
    except BadPicture as error:
        raise BadInput(f"{option}{name}: {error}", field=option) from error


def fit_base(image: Image, settings: Settings) -> tuple[Image, Settings]:
    """Return a base image of a size that the generator has, and the settings with that size.

    It is the size that the settings set, or else the image's own, in the generator's steps and reduced to its
    number of pixels where it is larger. Raises `BadInput` for a size of another ratio.
    """
    from pleinair.tools.images.masks import fitted

    width, height = _fitting_size(image.size, settings.image, declared_capabilities(settings))
    options = settings.image.model_copy(update={"width": width, "height": height})
    return fitted(image, (width, height)), settings.model_copy(update={"image": options})


def _fitting_size(size: Size, options: ImageOptions, capabilities: Capabilities) -> Size:
    ratio = size[0] / size[1]
    if options.width and options.height:
        if abs(options.width / options.height / ratio - 1) > _STRETCH:
            nearest = _steps((options.width, options.width / ratio), capabilities)
            raise BadInput(
                f"size {options.width} × {options.height}: another ratio than that of the base, {size[0]} × "
                f"{size[1]} pixels",
                f"For its width, {nearest[0]} × {nearest[1]} fits; without a size the base's own counts.",
                field=SIZE_FIELD,
            )
        return options.width, options.height
    if options.width:
        return options.width, _steps((options.width, options.width / ratio), capabilities)[1]
    if options.height:
        return _steps((options.height * ratio, options.height), capabilities)[0], options.height
    share = min(1.0, math.sqrt(capabilities.width * capabilities.height / (size[0] * size[1])))
    return _steps((size[0] * share, size[1] * share), capabilities)


def _steps(size: tuple[float, float], capabilities: Capabilities) -> Size:
    """Return a size in the generator's steps."""
    unit = math.lcm(capabilities.multiple_of, 8)
    width, height = (min(max(round(side / unit), 1), MAX_SIDE // unit) * unit for side in size)
    return width, height
