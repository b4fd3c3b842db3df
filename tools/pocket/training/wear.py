"""Wear pictures down as a small generator would: ragged outlines, blur, noise, blocks, a tint."""

import torch
import torch.nn.functional as F
from torch import Tensor


def wear(pictures: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Return worn copies of float pictures [n, 3, h, w] in 0..1; a quarter of them stay clean.

    At `strength` 1 outlines move by up to some 2 pixels, the noise has a standard deviation of up to .05
    and a colour channel shifts by at most .05: far less than two palette colours differ.
    """
    n = len(pictures)
    amount = torch.rand(n, 4, generator=generator) * strength
    amount[torch.rand(n, generator=generator) < 0.25] = 0
    worn = _ripple(pictures, amount[:, 0], generator)
    worn = _soften(worn, amount[:, 1])
    worn = _grain(worn, amount[:, 2], generator)
    tint = 1 + (torch.rand(n, 1, 1, 1, generator=generator) - 0.5) * 0.16 * amount[:, 3].view(n, 1, 1, 1)
    shift = (torch.rand(n, 3, 1, 1, generator=generator) - 0.5) * 0.1 * amount[:, 3].view(n, 1, 1, 1)
    return (worn * tint + shift).clamp(0, 1)


def _ripple(pictures: Tensor, amount: Tensor, generator: torch.Generator) -> Tensor:
    """Move pixels along a smooth random field of up to about two pixels."""
    n, _, h, w = pictures.shape
    field = torch.randn(n, 2, 10, 10, generator=generator) * (2 / w) * amount.view(n, 1, 1, 1)
    field = F.interpolate(field, (h, w), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    straight = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), [n, 1, h, w], align_corners=False)
    return F.grid_sample(pictures, straight + field, padding_mode="border", align_corners=False)


def _soften(pictures: Tensor, amount: Tensor) -> Tensor:
    """Mix in a 3 × 3 mean taken twice."""
    soft = pictures
    for _ in range(2):
        soft = F.avg_pool2d(F.pad(soft, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = amount.view(-1, 1, 1, 1) * 0.8
    return torch.lerp(pictures, soft, share.expand_as(pictures))


def _grain(pictures: Tensor, amount: Tensor, generator: torch.Generator) -> Tensor:
    """Add fine noise and coarse noise in 4-pixel blocks, the latter like a wrong latent."""
    n, c, h, w = pictures.shape
    fine = torch.randn(n, c, h, w, generator=generator) * 0.04
    coarse = torch.randn(n, c, h // 4, w // 4, generator=generator) * 0.04
    blocks = F.interpolate(coarse, (h, w), mode="bilinear", align_corners=False)
    return pictures + (fine + blocks) * amount.view(n, 1, 1, 1)
