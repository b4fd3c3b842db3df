"""Decoding of JPEG files by nvJPEG on a GPU, in this process: for trusted files, while a library is indexed.

Plain files only: RGB or grey, upright, in sRGB, within the limits; others are for `sandbox`, as are all files
of a group with a damaged one. Needs torchvision with CUDA. Not covered: files that end too soon, which nvJPEG
may decode in part.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from pleinair.tools.images.colour import BadProfile, colours_of
from pleinair.tools.images.decoding import MAX_SIDE, ReadOptions
from pleinair.tools.images.sandbox import Read
from pleinair.tools.types import BadInput

_JPEG = b"\xff\xd8\xff"
_ORIENTATION = 0x0112  # the EXIF tag


def check_gpu_jpeg(setting: str, device: str) -> None:
    """Raise `BadInput` about a setting unless torchvision decodes JPEG on the device."""
    import torch

    message, remedy = f"{setting} = {device!r}", "Choose 'sandbox', which decodes on the CPU."
    if not torch.cuda.is_available():
        raise BadInput(f"{message}: torch finds no CUDA device here.", remedy, field=setting)
    data = io.BytesIO()
    Image.new("RGB", (16, 16)).save(data, "JPEG")
    try:
        _decode([data.getvalue()], device)
    except (RuntimeError, AttributeError) as error:
        raise BadInput(
            f"{message}: torchvision cannot decode there ({error}).", remedy, field=setting
        ) from error


def decode_plain(files: Sequence[bytes], options: ReadOptions, device: str) -> list[Read | None]:
    """Decode plain JPEGs on a device and reduce them there as `options.side` has it; None for other files."""
    places = [place for place, data in enumerate(files) if _is_plain(data, options)]
    reads: list[Read | None] = [None] * len(files)
    if not places:
        return reads
    try:
        decoded = _decode([files[place] for place in places], device)
    except RuntimeError:  # of one of the files, and there are no others then
        return reads
    for place, rows in zip(places, decoded, strict=True):
        height, width = rows.shape[1:]
        reads[place] = Read(_reduced(rows, options.side), size=(width, height))
    return reads


def _is_plain(data: bytes, options: ReadOptions) -> bool:
    """Return whether a file is a JPEG whose pixels are sRGB as they are; only its head is read."""
    if options.alpha or not data.startswith(_JPEG):
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            fits = max(image.size) <= MAX_SIDE and image.width * image.height <= options.max_pixels
            is_upright = image.getexif().get(_ORIENTATION, 1) == 1
            return fits and is_upright and image.mode in ("RGB", "L") and colours_of(image) is None
    except (BadProfile, OSError, ValueError, SyntaxError, LookupError, TypeError):
        return False


def _decode(files: Sequence[bytes], device: str) -> list[Any]:
    """Return bytes [3, height, width] on the device; raise `RuntimeError` if one of the files is damaged."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    tensors = [torch.from_numpy(np.frombuffer(data, np.uint8).copy()) for data in files]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torchvision 0.29 recommends TorchCodec
        rows: list[Any] = decode_jpeg(tensors, mode=ImageReadMode.RGB, device=device)
    return rows


def _reduced(rows: Any, side: int) -> Image.Image:
    """Divide both sides by a whole number so that the shorter one stays over `side`; 0: not at all."""
    from torch.nn.functional import avg_pool2d

    factor = max(1, min(rows.shape[1:]) // side) if side else 1
    if factor > 1:
        rows = avg_pool2d(rows.float(), factor, ceil_mode=True).round().byte()
    return Image.fromarray(rows.permute(1, 2, 0).contiguous().cpu().numpy())
