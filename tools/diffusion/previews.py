"""Small previews of an image that is being generated, computed from the latents between two steps.

Colours come from a linear map of the latents' channels, fitted once to each loaded autoencoder; there is no
table for any model. If the scheduler follows straight lines, the line is extended to its end, so that the
preview is what the model expects rather than the remaining noise. Not covered: servers that generate.
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

    ColourMap = NDArray[np.float64]  # [channels + 1, 3]; the last row is the offset

LONGEST = 96  # pixels of a preview's longer side, at most
PAUSE = 0.25  # seconds between two previews, at least
CELLS = 8  # latents a side of each image to which the map is fitted
TEXTURES = 4  # of those images a patch size, in random colours, so that every channel varies
STRAIGHT = ("FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler")

log = logging.getLogger(__name__)
_colour_maps: MutableMapping[Any, ColourMap | None] = WeakKeyDictionary()  # by loaded autoencoder


class Previews:
    """Previews for a callback, at most four a second.

    Args:
        callback: receives the previews.
        size: width and height of the full image in pixels.
        clock: monotonic seconds.
    """

    def __init__(
        self, callback: PreviewCallback, size: tuple[int, int], clock: Callable[[], float] = monotonic
    ) -> None:
        self._callback, self._size, self._clock = callback, size, clock
        self._next = float("-inf")
        self._before: Any = None

    def __call__(self, pipeline: Any, latents: Any) -> None:
        """Show the latents after a step, unless others were shown less than `PAUSE` ago.

        The first step's latents are mostly noise and are never shown.
        """
        before, self._before = self._before, latents
        now = self._clock()
        if before is None or now < self._next:
            return
        self._next = now + PAUSE
        if image := make_preview(pipeline, before, latents, self._size):
            self._callback.show(image)


def make_preview(pipeline: Any, before: Any, latents: Any, size: tuple[int, int]) -> Image | None:
    """Convert latents to a small RGB image; None for a class whose latents are not understood.

    Args:
        pipeline: the loaded pipeline that generates.
        before: its latents one step ago.
        latents: the current ones, packed as the class packs them.
        size: width and height of the full image in pixels.
    """
    try:
        colour_map = _colour_map_of(pipeline)
        grid = _unpack(pipeline, _extrapolate(pipeline.scheduler, before, latents), size)
        if colour_map is None or grid is None:
            return None
        return _colour(grid.permute(1, 2, 0).float().cpu().numpy(), colour_map)
    # generation continues without it
    except (ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        log.debug("no preview from %s: %s", type(pipeline).__name__, error)
        return None


def _colour(grid: NDArray[np.float32], colour_map: ColourMap) -> Image:
    """Map [height, width, channels] to an image no larger than a preview may be."""
    from PIL import Image

    rgb = (grid @ colour_map[:-1] + colour_map[-1]).clip(0, 1)
    image = Image.fromarray((rgb * 255).round().astype("uint8"))
    image.thumbnail((LONGEST, LONGEST))
    return image


def _extrapolate(scheduler: Any, before: Any, latents: Any) -> Any:
    """Extend the line of the last step to the last noise level; other schedulers' latents are unchanged."""
    step = getattr(scheduler, "step_index", None)
    if type(scheduler).__name__ not in STRAIGHT or not step:
        return latents
    levels = [float(level) for level in scheduler.sigmas]
    share = (levels[-1] - levels[step]) / (levels[step] - levels[step - 1])
    return latents + share * (latents - before)


def _unpack(pipeline: Any, latents: Any, size: tuple[int, int]) -> Any:
    """Return the autoencoder's own latents, [channels, height, width], unpacked by the class itself."""
    width, height = size
    scale = pipeline.vae_scale_factor
    if latents.ndim == 3:
        rows, columns = height // (2 * scale), width // (2 * scale)  # in tokens of 2 × 2 latents
        if latents.shape[1] != rows * columns:
            return None
        if hasattr(pipeline, "_unpack_latents_with_ids"):
            return _unpack_flux2(pipeline, latents, rows, columns)
        latents = pipeline._unpack_latents(latents, height, width, scale)
    grid = latents[0]
    return _denormalise(pipeline.vae.config, grid[:, 0] if grid.ndim == 4 else grid)


def _unpack_flux2(pipeline: Any, latents: Any, rows: int, columns: int) -> Any:
    """Arrange FLUX.2's tokens by their positions and undo the autoencoder's batch norm."""
    import torch

    positions = pipeline._prepare_latent_ids(torch.empty(1, 1, rows, columns)).to(latents.device)
    grid = pipeline._unpack_latents_with_ids(latents, positions).float()
    norm = pipeline.vae.bn
    deviation = (norm.running_var.float() + pipeline.vae.config.batch_norm_eps).sqrt()
    grid = grid * _per_channel(deviation, grid) + _per_channel(norm.running_mean, grid)
    return pipeline._unpatchify_latents(grid)[0]


def _denormalise(config: Any, grid: Any) -> Any:
    """Undo the scale and the shift that the class applies to an autoencoder's latents."""
    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    grid = grid.float() / (getattr(config, "scaling_factor", None) or 1.0)
    if mean is None or deviation is None:
        return grid + (getattr(config, "shift_factor", None) or 0.0)
    return grid * _per_channel(deviation, grid) + _per_channel(mean, grid)


def _per_channel(values: Any, grid: Any) -> Any:
    """Reshape one value a channel to broadcast over [..., channels, height, width]."""
    import torch

    return torch.as_tensor(values, device=grid.device, dtype=grid.dtype).reshape(-1, 1, 1)


def _colour_map_of(pipeline: Any) -> ColourMap | None:
    if pipeline.vae not in _colour_maps:
        _colour_maps[pipeline.vae] = None  # one that fails is not fitted again
        _colour_maps[pipeline.vae] = fit_colour_map(pipeline)
    return _colour_maps[pipeline.vae]


def fit_colour_map(pipeline: Any) -> ColourMap | None:
    """Fit latents to colours by encoding plain and patched images, without noise; None if they overflow."""
    import numpy as np
    import torch

    images = samples(CELLS * pipeline.vae_scale_factor)
    with torch.no_grad():
        latents = _encode(pipeline, images)
    if not latents.isfinite().all():
        return None
    colours = torch.nn.functional.adaptive_avg_pool2d(images, tuple(latents.shape[-2:]))
    inputs, targets = (tensor.movedim(1, -1).flatten(0, 2).double().numpy() for tensor in (latents, colours))
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    colour_map: ColourMap = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    return colour_map


def _encode(pipeline: Any, images: Any) -> Any:
    """Encode images, [n, 3, height, width] from 0 to 1, to their mean latents in float32 on the CPU."""
    inputs = (2 * images - 1).to(device=pipeline._execution_device, dtype=pipeline.vae.dtype)
    if hasattr(pipeline.vae.config, "temperal_downsample"):  # diffusers' spelling; a video autoencoder
        inputs = inputs[:, :, None]
    latents = pipeline.vae.encode(inputs).latent_dist.mode()
    return (latents[:, :, 0] if latents.ndim == 5 else latents).float().cpu()


def samples(side: int) -> Any:
    """Return images of one colour, and of random ones in patches of all sizes; [n, 3, side, side], 0 to 1."""
    import torch

    corners = torch.tensor(list(product((0.0, 1.0), repeat=3)))
    noise = torch.Generator().manual_seed(0)  # of its own: torch's global noise is not consumed
    counts = [2**power for power in range(1, side.bit_length()) if side % 2**power == 0]
    patches = [torch.rand(TEXTURES, 3, count, count, generator=noise) for count in counts]
    images = [corners[:, :, None, None], *patches]
    return torch.cat([torch.nn.functional.interpolate(image, size=(side, side)) for image in images])
