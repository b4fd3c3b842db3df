"""Autoencoder of the pocket generator: a linear encoder that needs no training, and its trained decoder.

The encoder is the patch map: principal components of 4 × 4 pixels, whitened to 16 channels. In
`AutoencoderKLFlux2` the first stride-2 convolution collects 2 × 2 pixels, the second 2 × 2 of those and
projects onto the map's 16 directions, each with both signs. The final group norm is made linear by two large
constants in every group, and the activation by silu(a) - silu(-a) = a. Residual branches are silenced. Exact
up to rounding.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from diffusers.models.resnet import ResnetBlock2D
from numpy.typing import NDArray
from torch import Tensor, nn

from pleinair.tools.pocket.catalogue.scenes import SIZE, render
from pleinair.tools.pocket.training.cases import draw_item, held_out_rng, training_rng
from pleinair.tools.pocket.training.course import Course, Muon, Run

Floats = NDArray[np.float32]
PATCH, CHANNELS = 4, 16
GROUPS = 8
CONSTANT = 100.0
WIDTHS, DECODER_WIDTHS = (16, 48, 48), (16, 24, 48)
IMAGES, FIRST_INDEX, BATCH = 4000, 4_000_000_000, 4
MUON_RATE, ADAM_RATE = 0.02, 2e-3
CHECKPOINT = "decoder"


@dataclass(frozen=True, slots=True)
class PatchMap:
    """Linear map: latent = (patch - `mean` (48,)) @ `basis` (48, 16) / `scale` (16,)."""

    basis: Floats
    mean: Floats
    scale: Floats

    def encode(self, images: NDArray[np.uint8]) -> Floats:
        """Map (n, h, w, 3) bytes to (n, 16, h/4, w/4) latents."""
        n, h, w, _ = images.shape
        latents = (_to_patches(images) - self.mean) @ (self.basis / self.scale)
        return latents.reshape(n, h // PATCH, w // PATCH, CHANNELS).transpose(0, 3, 1, 2)


def _to_patches(images: NDArray[np.uint8]) -> Floats:
    """Cut (n, h, w, 3) bytes into (n * h/4 * w/4, 48) patches in -1..1, ordered row, column, colour."""
    n, h, w, _ = images.shape
    cut = images.reshape(n, h // PATCH, PATCH, w // PATCH, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(-1, PATCH * PATCH * 3).astype(np.float32) / 127.5 - 1


def render_items(first: int, count: int, references: int = 0) -> NDArray[np.uint8]:
    """Render training items with so many references from index `first`: (count, 96, 96, 3) bytes."""
    rngs = [training_rng(first + index) for index in range(count)]
    return np.stack([np.asarray(render(draw_item(rng, references).scene)) for rng in rngs])


def fit_patch_map(images: NDArray[np.uint8]) -> PatchMap:
    """Return the first 16 principal components of the images' patches, each scaled to unit variance."""
    patches = _to_patches(images)
    mean = patches.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((patches - mean).T.astype(np.float64)))
    order = np.argsort(values)[::-1][:CHANNELS]
    basis, scale = vectors[:, order].astype(np.float32), np.sqrt(values[order]).astype(np.float32)
    return PatchMap(basis, mean, scale)


def load_patch_map(run: Run) -> PatchMap:
    """Load the patch map of a run, fitted to rendered scenes the first time."""
    path = run.work / "patch_map.npz"
    if not path.exists():
        half = run.size(1500, 30)
        fitted = fit_patch_map(np.concatenate([render_items(0, half), render_items(half, half, 2)]))
        run.work.mkdir(parents=True, exist_ok=True)
        np.savez(path, basis=fitted.basis, mean=fitted.mean, scale=fitted.scale)
    with np.load(path) as arrays:
        return PatchMap(**arrays)


def build_autoencoder(patch_map: PatchMap) -> AutoencoderKLFlux2:
    """Return the autoencoder: a linear encoder from `patch_map`, a decoder still to be trained."""
    model = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=WIDTHS,
        decoder_block_out_channels=DECODER_WIDTHS,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=GROUPS,
        sample_size=SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        _write_encoder(model.encoder, patch_map)
    return model


def _write_encoder(encoder: Any, patch_map: PatchMap) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.zero_()
            if module.bias is not None:
                module.bias.zero_()
    for module in encoder.modules():
        if isinstance(module, ResnetBlock2D) and module.conv_shortcut is not None:
            _identity(module.conv_shortcut, tap=0)
    _identity(encoder.conv_in, tap=1, channels=3)
    _collect(encoder.down_blocks[0].downsamplers[0].conv)
    _project(encoder.down_blocks[1].downsamplers[0].conv, patch_map)
    _difference(encoder)


def _identity(conv: nn.Conv2d, tap: int, channels: int | None = None) -> None:
    for c in range(channels or min(conv.weight.shape[:2])):
        conv.weight[c, c, tap, tap] = 1.0


def _collect(conv: nn.Conv2d) -> None:
    """Stack the 2 × 2 pixels at each place: channel = 3 · (2 · row + column) + colour."""
    for row, column, colour in np.ndindex(2, 2, 3):
        conv.weight[3 * (2 * row + column) + colour, colour, row, column] = 1.0


def _project(conv: Any, patch_map: PatchMap) -> None:
    """Project 4 × 4 pixels: six channels a group, +a -a +b -b of two latents and the two constants."""
    matrix = torch.from_numpy(patch_map.basis / patch_map.scale).reshape(PATCH, PATCH, 3, CHANNELS)
    offset = -torch.from_numpy(patch_map.mean @ (patch_map.basis / patch_map.scale))
    for k in range(CHANNELS):
        plus, minus = _positions(k)
        for row, column, colour in np.ndindex(PATCH, PATCH, 3):
            source = 3 * (2 * (row % 2) + column % 2) + colour
            conv.weight[plus, source, row // 2, column // 2] = matrix[row, column, colour, k]
        conv.weight[minus] = -conv.weight[plus]
        conv.bias[plus], conv.bias[minus] = offset[k], -offset[k]
    for group in range(GROUPS):
        conv.bias[6 * group + 4], conv.bias[6 * group + 5] = CONSTANT, -CONSTANT


def _positions(latent: int) -> tuple[int, int]:
    """Return the channels that carry a latent with plus and with minus sign."""
    first = 6 * (latent // 2) + 2 * (latent % 2)
    return first, first + 1


def _difference(encoder: Any) -> None:
    """Undo the norm's division, and read each latent as silu(a) - silu(-a); the variance stays tiny."""
    encoder.conv_norm_out.weight.fill_(CONSTANT / 3**0.5)
    encoder.conv_norm_out.bias.zero_()
    for k in range(CHANNELS):
        plus, minus = _positions(k)
        encoder.conv_out.weight[k, plus, 1, 1], encoder.conv_out.weight[k, minus, 1, 1] = 1.0, -1.0
    encoder.conv_out.bias[CHANNELS:] = -20.0


def to_tensor(images: Any) -> Tensor:
    """Convert (n, h, w, 3) bytes to (n, 3, h, w) in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def _schedule(progress: float, step: int) -> float:
    return min(1.0, (step + 1) / 30) * min(1.0, max(0.02, (1 - progress) / 0.5))


def train(run: Run) -> None:
    """Train the decoder on the absolute error; `generator` exports its averaged weights."""
    torch.manual_seed(0)
    images = render_items(FIRST_INDEX, run.size(IMAGES, 8))
    patch_map = load_patch_map(run)
    decoder = build_autoencoder(patch_map).decoder.to(memory_format=torch.channels_last)
    kernels = {n: p for n, p in decoder.named_parameters() if p.ndim == 4 and "conv_out" not in n}
    rest = [p for n, p in decoder.named_parameters() if n not in kernels]
    optimizers = [
        Muon(kernels.values(), lr=MUON_RATE),
        torch.optim.AdamW(rest, lr=ADAM_RATE, weight_decay=0.0),
    ]
    course = Course(run, CHECKPOINT, decoder, optimizers, _schedule, clip=math.inf, decay=0.98)
    for _ in course.steps():
        batch = images[torch.randint(len(images), (BATCH,)).numpy()]
        latents = torch.from_numpy(patch_map.encode(batch)).contiguous(memory_format=torch.channels_last)
        course.descend((decoder(latents) - to_tensor(batch)).abs().mean())
    model = load_autoencoder(run)
    run.say(f"held-out error {mean_absolute_error(model):.2f} / 255")


def load_autoencoder(run: Run) -> AutoencoderKLFlux2:
    """Return the run's autoencoder with its trained decoder.

    Raises:
        FileNotFoundError: the decoder was not trained.
    """
    stored = run.load(CHECKPOINT)
    if stored is None:
        raise FileNotFoundError(f"no {CHECKPOINT}.pt in {run.work}; train the part `autoencoder` first")
    model = build_autoencoder(load_patch_map(run))
    model.decoder.load_state_dict(stored["average"])
    return model.eval()


@torch.no_grad()
def mean_absolute_error(autoencoder: Any, count: int = 60) -> float:
    """Return the reconstruction error of `count` held-out scenes of one to three subjects, in 1/255."""
    items = [draw_item(held_out_rng(index), index % 3) for index in range(count)]
    images = to_tensor(np.stack([np.asarray(render(item.scene)) for item in items]))
    decoded = autoencoder.decode(autoencoder.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    return float((decoded - images).abs().mean() * 127.5)
