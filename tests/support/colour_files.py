"""One scene as files in other colour spaces, computed without LittleCMS from the spaces' definitions."""

from __future__ import annotations

import struct
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from support.hostile_files import save

from pleinair.tools.images.profiles import ADOBE_RGB, D65, SRGB_CURVE, ColourSpace, icc_profile

Floats = NDArray[np.float64]
SRGB = ColourSpace(((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), D65, SRGB_CURVE)
PROPHOTO = ColourSpace(((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), (0.3457, 0.3585), (1.8,))
_WHITE = np.array([0.96420288, 1.0, 0.82490540])  # D50
_GAIN = 1.4  # of the inks of that printer: less of them takes less light away than evenly
_GRID = 17  # points an ink in the profile of a printer


def scene(width: int = 96, height: int = 72) -> Image.Image:
    """Return soft shapes in colours that every space here has."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    planes = (
        0.55 + 0.3 * np.sin(9 * x + 2 * y),
        0.5 + 0.25 * np.cos(7 * y) * np.sin(5 * x),
        0.45 + 0.3 * np.cos(4 * x * y + 3 * y),
    )
    return Image.fromarray((np.stack(planes, axis=-1) * 255).round().astype(np.uint8))


def in_space(image: Image.Image, space: ColourSpace) -> Image.Image:
    """Return the numbers that an sRGB image has in another space."""
    linear = (
        _decoded(np.asarray(image) / 255, SRGB.curve)
        @ np.array(SRGB.to_xyz).T
        @ np.linalg.inv(space.to_xyz).T
    )
    return Image.fromarray((_encoded(linear.clip(0, 1), space.curve) * 255).round().astype(np.uint8))


def camera_file(image: Image.Image) -> bytes:
    """Return a JPEG in Adobe RGB that says so in its EXIF alone, as cameras write it."""
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA001: 0xFFFF, 0xA005: {1: "R03"}})
    return save(in_space(image, ADOBE_RGB), "JPEG", quality=98, subsampling=0, exif=exif)


def inks(image: Image.Image) -> Image.Image:
    """Return the inks that the profile of `printer` has for an image: black half of what it can be."""
    rgb = np.asarray(image) / 255
    black = 0.5 * (1 - rgb.max(axis=-1, keepdims=True))
    planes = np.concatenate([1 - rgb / (1 - black), black], axis=-1) ** (1 / _GAIN)
    return Image.fromarray((planes * 255).round().astype(np.uint8), "CMYK")


@cache
def printer() -> bytes:
    """Build the ICC profile of a printer as a table from CMYK to CIELAB."""
    amounts = np.array(list(product(np.linspace(0, 1, _GRID), repeat=4)))
    light = 1 - amounts**_GAIN
    rgb = light[:, :3] * light[:, 3:]
    lab = _lab(_decoded(rgb, SRGB.curve) @ np.array(SRGB.to_xyz).T)
    ramp = bytes(range(256))
    table = struct.pack(">4s4xBBBx9i", b"mft1", 4, 3, _GRID, *[65536 * (n % 4 == 0) for n in range(9)])
    table += ramp * 4 + lab.round().clip(0, 255).astype(np.uint8).tobytes() + ramp * 3
    white = b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in _WHITE)
    tags, place, body = [(b"wtpt", white), (b"A2B0", table)], 128 + 4 + 24, b""
    directory = struct.pack(">I", len(tags))
    for name, data in tags:
        directory += struct.pack(">4sII", name, place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", place + len(body), bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += bytes(12) + b"acsp" + bytes(28) + white[8:]
    return header + bytes(128 - len(header)) + directory + body


def tagged(image: Image.Image, space: ColourSpace, kind: str = "PNG") -> bytes:
    """Return a file in a space, with its profile."""
    return save(in_space(image, space), kind, icc_profile=icc_profile(space))


def _decoded(values: Floats, curve: tuple[float, ...]) -> Floats:
    if len(curve) == 1:
        return values ** curve[0]
    gamma, a, b, c, d = curve
    return np.where(values >= d, (a * values + b).clip(0) ** gamma, c * values)


def _encoded(values: Floats, curve: tuple[float, ...]) -> Floats:
    if len(curve) == 1:
        return values ** (1 / curve[0])
    gamma, a, b, c, d = curve
    return np.where(values >= c * d, (values ** (1 / gamma) - b) / a, values / c)


def _lab(xyz: Floats) -> Floats:
    """Return CIELAB in 8 bits each, as ICC.1:2001-04, 6.3.4 encodes it."""
    share = xyz / _WHITE
    root = np.where(share > (6 / 29) ** 3, np.cbrt(share), share / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([(116 * y - 16) * 2.55, 500 * (x - y) + 128, 200 * (y - z) + 128], axis=-1)
