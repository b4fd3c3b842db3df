"""ICC profiles of three primaries and one curve, built from published numbers.

Files often name a colour space without embedding its profile. Not covered: tables, black points, other inks.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

_D50 = np.array([0.96420288, 1.0, 0.82490540])  # white of the connection space, ICC.1:2010, 7.2.16
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D65 = (0.3127, 0.3290)

Chromaticity = tuple[float, float]  # CIE 1931 x and y


@dataclass(frozen=True)
class ColourSpace:
    """RGB space: chromaticities of red, green, blue and white, and its curve.

    `curve` has the parameters of ICC's parametric curve: one (a gamma) or five (gamma, a, b, c, d).
    """

    primaries: tuple[Chromaticity, Chromaticity, Chromaticity]
    white: Chromaticity
    curve: tuple[float, ...]

    @property
    def to_xyz(self) -> NDArray[np.float64]:
        """Return the matrix from linear RGB to XYZ under D50, [3, 3]."""
        columns = np.stack([_xyz(xy) for xy in self.primaries], axis=1)
        white = _xyz(self.white)
        cones, target = _BRADFORD @ white, _BRADFORD @ _D50
        adapted = np.linalg.inv(_BRADFORD) @ np.diag(target / cones) @ _BRADFORD
        matrix: NDArray[np.float64] = adapted @ (columns * np.linalg.solve(columns, white))
        return matrix


SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # IEC 61966-2-1
DISPLAY_P3 = ColourSpace(((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), D65, SRGB_CURVE)
ADOBE_RGB = ColourSpace(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), D65, (563 / 256,))


@cache
def icc_profile(space: ColourSpace) -> bytes:
    """Build a version 4 display profile of an RGB space."""
    curve = _curve(space.curve)
    tags = [(b"desc", _text("RGB")), (b"cprt", _text("CC0")), (b"wtpt", _numbers(b"XYZ ", _D50))]
    for name, column in zip((b"r", b"g", b"b"), space.to_xyz.T, strict=True):
        tags += [(name + b"XYZ", _numbers(b"XYZ ", column)), (name + b"TRC", curve)]
    place = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table += struct.pack(">4sII", name, place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    return _header(place + len(body)) + table + body


def _xyz(xy: Chromaticity) -> NDArray[np.float64]:
    x, y = xy
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _header(size: int) -> bytes:
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    kinds = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x04200000, b"mntr", b"RGB ", b"XYZ ")
    head = kinds + date + b"acsp" + bytes(28) + _fixed(_D50)
    return head + bytes(128 - len(head))


def _fixed(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _numbers(kind: bytes, values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return kind + bytes(4) + _fixed(values)


def _curve(parameters: tuple[float, ...]) -> bytes:
    kind = {1: 0, 5: 3}[len(parameters)]
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + _fixed(parameters)


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data
