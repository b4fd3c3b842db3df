"""Write the linear patch map into `AutoencoderKLFlux2`: its encoder then needs no training.

The first stride-2 convolution collects 2 × 2 pixels, the second 2 × 2 of those and projects onto the map's
16 directions, each with both signs. The final group norm is made linear by two large constants in every
group, and the activation by silu(a) - silu(-a) = a. Residual branches are silenced. Exact up to rounding.
"""

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from pleinair.tools.pocket.training.patches import CHANNELS, PATCH, PatchMap

GROUPS = 8
CONSTANT = 100.0
WIDTHS = (16, 48, 48)
DECODER_WIDTHS = (16, 24, 48)


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
        sample_size=64,
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
