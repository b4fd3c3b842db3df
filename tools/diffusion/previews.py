"""Small pictures of what is being drawn, read from the latents between two steps.

Colours come from a linear map of the latents' channels, fitted once to each loaded autoencoder; there is no
table for any model. Where the scheduler goes in straight lines, the line is followed to its end, so that the
preview is what the model expects and not the noise that is still there. Not covered: servers that draw.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from itertools import product
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pleinair.tools.callbacks import PreviewCallback

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Colours = NDArray[np.float64]  # [channels + 1, 3], the last row is added to every place

LONGEST = 96  # pixels of a preview's longer side, at most
PAUSE = 0.25  # seconds from one preview to the next, at least
CELLS = 8  # latents a side of each picture that the map is fitted to
TEXTURES = 4  # of those pictures a size of patch, in random colours, so that every channel is moved
STRAIGHT = ("FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler")

log = logging.getLogger(__name__)
fitted: MutableMapping[Any, Colours | None] = WeakKeyDictionary()  # by autoencoder, while it is loaded


class Previews:
    """Show a viewer what the latents look like, at most four times a second.

    Args:
        viewer: who is shown.
        size: width and height of the whole picture in pixels.
        clock: seconds that only grow.
    """

    def __init__(
        self, viewer: PreviewCallback, size: tuple[int, int], clock: Callable[[], float] = monotonic
    ) -> None:
        self._viewer, self._size, self._clock = viewer, size, clock
        self._next = float("-inf")
        self._before: Any = None

    def __call__(self, pipeline: Any, latents: Any) -> None:
        """Show the latents after a step, unless those of another were shown a moment ago.

        The first step's are all noise and are never shown.
        """
        before, self._before = self._before, latents
        now = self._clock()
        if before is None or now < self._next:
            return
        self._next = now + PAUSE
        if image := preview(pipeline, before, latents, self._size):
            self._viewer.show(image)


def preview(pipeline: Any, before: Any, latents: Any, size: tuple[int, int]) -> Image | None:
    """Make a small RGB picture of latents; None for a class whose latents are not understood.

    Args:
        pipeline: the loaded pipeline that draws.
        before: its latents one step ago.
        latents: those of now, packed as the class packs them.
        size: width and height of the whole picture in pixels.
    """
    try:
        colours = _colours_of(pipeline)
        grid = _unpacked(pipeline, _expected(pipeline.scheduler, before, latents), size)
        if colours is None or grid is None:
            return None
        return _coloured(grid.permute(1, 2, 0).float().cpu().numpy(), colours)
    # the picture itself goes on
    except (ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        log.debug("no preview from %s: %s", type(pipeline).__name__, error)
        return None


def _coloured(places: NDArray[np.float32], colours: Colours) -> Image:
    """Map [height, width, channels] to a picture no larger than a preview may be."""
    from PIL import Image

    rgb = (places @ colours[:-1] + colours[-1]).clip(0, 1)
    image = Image.fromarray((rgb * 255).round().astype("uint8"))
    image.thumbnail((LONGEST, LONGEST))
    return image


def _expected(scheduler: Any, before: Any, latents: Any) -> Any:
    """Follow the line of the last step to the last noise level; other schedulers' latents stay."""
    step = getattr(scheduler, "step_index", None)
    if type(scheduler).__name__ not in STRAIGHT or not step:
        return latents
    levels = [float(level) for level in scheduler.sigmas]
    share = (levels[-1] - levels[step]) / (levels[step] - levels[step - 1])
    return latents + share * (latents - before)


def _unpacked(pipeline: Any, latents: Any, size: tuple[int, int]) -> Any:
    """Give the autoencoder's own latents, [channels, height, width], by the class's own un-packing."""
    width, height = size
    scale = pipeline.vae_scale_factor
    if latents.ndim == 3:
        tall, wide = height // (2 * scale), width // (2 * scale)  # in tokens of 2 × 2 latents
        if latents.shape[1] != tall * wide:
            return None
        if hasattr(pipeline, "_unpack_latents_with_ids"):
            return _spread(pipeline, latents, tall, wide)
        latents = pipeline._unpack_latents(latents, height, width, scale)
    grid = latents[0]
    return _denormalised(pipeline.vae.config, grid[:, 0] if grid.ndim == 4 else grid)


def _spread(pipeline: Any, latents: Any, tall: int, wide: int) -> Any:
    """Lay tokens out by their places and take back the autoencoder's batch norm, as FLUX.2 has them."""
    import torch

    places = pipeline._prepare_latent_ids(torch.empty(1, 1, tall, wide)).to(latents.device)
    grid = pipeline._unpack_latents_with_ids(latents, places).float()
    norm = pipeline.vae.bn
    deviation = (norm.running_var.float() + pipeline.vae.config.batch_norm_eps).sqrt()
    grid = grid * _along(deviation, grid) + _along(norm.running_mean, grid)
    return pipeline._unpatchify_latents(grid)[0]


def _denormalised(config: Any, grid: Any) -> Any:
    """Take the scale and the shift back that the class gives an autoencoder's latents."""
    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    grid = grid.float() / (getattr(config, "scaling_factor", None) or 1.0)
    if mean is None or deviation is None:
        return grid + (getattr(config, "shift_factor", None) or 0.0)
    return grid * _along(deviation, grid) + _along(mean, grid)


def _along(values: Any, grid: Any) -> Any:
    """Shape one value a channel so that it meets the channels of [..., channels, height, width]."""
    import torch

    return torch.as_tensor(values, device=grid.device, dtype=grid.dtype).reshape(-1, 1, 1)


def _colours_of(pipeline: Any) -> Colours | None:
    """Give the map of a pipeline's autoencoder, fitted the first time that it is asked for."""
    if pipeline.vae not in fitted:
        fitted[pipeline.vae] = None  # one that fails is not tried again
        fitted[pipeline.vae] = fit_colours(pipeline)
    return fitted[pipeline.vae]


def fit_colours(pipeline: Any) -> Colours | None:
    """Fit latents to colours by what the autoencoder makes of plain and patched pictures, without noise.

    Gives None for one whose numbers overflow.
    """
    import numpy as np
    import torch

    shown = samples(CELLS * pipeline.vae_scale_factor)
    with torch.no_grad():
        latents = _encoded(pipeline, shown)
    if not latents.isfinite().all():
        return None
    wanted = torch.nn.functional.adaptive_avg_pool2d(shown, tuple(latents.shape[-2:]))
    flat = [values.movedim(1, -1).flatten(0, 2).double().numpy() for values in (latents, wanted)]
    given = np.concatenate([flat[0], np.ones((len(flat[0]), 1))], axis=1)
    colours: Colours = np.linalg.lstsq(given, flat[1], rcond=None)[0]
    return colours


def _encoded(pipeline: Any, shown: Any) -> Any:
    """Encode pictures, [n, 3, height, width] from 0 to 1, to their mean latents in float32 on the CPU."""
    given = (2 * shown - 1).to(device=pipeline._execution_device, dtype=pipeline.vae.dtype)
    if hasattr(pipeline.vae.config, "temperal_downsample"):  # diffusers' word for one that takes films
        given = given[:, :, None]
    latents = pipeline.vae.encode(given).latent_dist.mode()
    return (latents[:, :, 0] if latents.ndim == 5 else latents).float().cpu()


def samples(side: int) -> Any:
    """Make pictures of one colour, and of random ones in patches of all sizes; [n, 3, side, side], 0 to 1."""
    import torch

    corners = torch.tensor(list(product((0.0, 1.0), repeat=3)))
    noise = torch.Generator().manual_seed(0)  # our own: torch's own noise stays where it was
    counts = [2**power for power in range(1, side.bit_length()) if side % 2**power == 0]
    patches = [torch.rand(TEXTURES, 3, count, count, generator=noise) for count in counts]
    shown = [corners[:, :, None, None], *patches]
    return torch.cat([torch.nn.functional.interpolate(one, size=(side, side)) for one in shown])
