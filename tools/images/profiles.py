"""ICC profiles of three primaries and one curve, built from published numbers.

Files often name a colour space without embedding its profile. Not covered: tables, black points, other inks.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

Chromaticity = tuple[float, float]  # CIE 1931 x and y
Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]  # rows

_D50 = (0.96420288, 1.0, 0.82490540)  # white of the connection space, ICC.1:2010, 7.2.16
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
D65 = (0.3127, 0.3290)


@dataclass(frozen=True)
class ColourSpace:
    """RGB space: chromaticities of red, green, blue and white, and its curve.

    `curve` has the parameters of ICC's parametric curve: one (a gamma) or five (gamma, a, b, c, d).
    """

    primaries: tuple[Chromaticity, Chromaticity, Chromaticity]
    white: Chromaticity
    curve: tuple[float, ...]

    @property
    def to_xyz(self) -> Matrix:
        """Return the matrix from linear RGB to XYZ under D50."""
        red, green, blue = map(_xyz, self.primaries)
        columns = _transposed((red, green, blue))
        white = _xyz(self.white)
        scales = _applied(_inverse(columns), white)
        cones, target = _applied(_BRADFORD, white), _applied(_BRADFORD, _D50)
        ratios = [to / of for to, of in zip(target, cones, strict=True)]
        adapted = _product(_inverse(_BRADFORD), _scaled_rows(_BRADFORD, ratios))
        return _product(adapted, _transposed(_scaled_rows(_transposed(columns), scales)))


SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # IEC 61966-2-1
DISPLAY_P3 = ColourSpace(((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), D65, SRGB_CURVE)
ADOBE_RGB = ColourSpace(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), D65, (563 / 256,))


@cache
def icc_profile(space: ColourSpace) -> bytes:
    """Build a version 4 display profile of an RGB space."""
    curve = _curve(space.curve)
    tags = [(b"desc", _text("RGB")), (b"cprt", _text("CC0")), (b"wtpt", _numbers(b"XYZ ", _D50))]
    for name, column in zip((b"r", b"g", b"b"), _transposed(space.to_xyz), strict=True):
        tags += [(name + b"XYZ", _numbers(b"XYZ ", column)), (name + b"TRC", curve)]
    place = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table += struct.pack(">4sII", name, place + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    return _header(place + len(body)) + table + body


def _xyz(xy: Chromaticity) -> Vector:
    x, y = xy
    return x / y, 1.0, (1 - x - y) / y


def _applied(matrix: Matrix, vector: Vector) -> Vector:
    a, b, c = (sum(x * y for x, y in zip(row, vector, strict=True)) for row in matrix)
    return a, b, c


def _transposed(matrix: Matrix) -> Matrix:
    a, b, c = zip(*matrix, strict=True)
    return a, b, c


def _product(first: Matrix, second: Matrix) -> Matrix:
    a, b, c = (_applied(first, column) for column in _transposed(second))
    return _transposed((a, b, c))


def _scaled_rows(matrix: Matrix, factors: Sequence[float]) -> Matrix:
    rows = zip(matrix, factors, strict=True)
    a, b, c = ((x * factor, y * factor, z * factor) for (x, y, z), factor in rows)
    return a, b, c


def _inverse(matrix: Matrix) -> Matrix:
    """Return the inverse by cross products of the rows, which are its columns but for the determinant."""
    a, b, c = matrix
    columns = _crossed(b, c), _crossed(c, a), _crossed(a, b)
    determinant = sum(x * y for x, y in zip(a, columns[0], strict=True))
    return _transposed(_scaled_rows(columns, [1 / determinant] * 3))


def _crossed(first: Vector, second: Vector) -> Vector:
    (a, b, c), (x, y, z) = first, second
    return b * z - c * y, c * x - a * z, a * y - b * x


def _header(size: int) -> bytes:
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    kinds = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x04200000, b"mntr", b"RGB ", b"XYZ ")
    head = kinds + date + b"acsp" + bytes(28) + _fixed(_D50)
    return head + bytes(128 - len(head))


def _fixed(values: Sequence[float]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _numbers(kind: bytes, values: Sequence[float]) -> bytes:
    return kind + bytes(4) + _fixed(values)


def _curve(parameters: tuple[float, ...]) -> bytes:
    kind = {1: 0, 5: 3}[len(parameters)]
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + _fixed(parameters)


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data
