"""Near copies of an image: the same one, rescaled, recompressed or cropped by a tenth of a side or less.

Two thumbnails are aligned by moving the four edges of one, and compared where both show something. Not
covered: mirrored, rotated, recoloured or brightened copies, and those with a text or a frame.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import inf, sqrt
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Thumbnail: TypeAlias = NDArray[np.uint8]  # [SIDE, SIDE, 3], RGB
_Floats: TypeAlias = NDArray[np.float32]
_Edges: TypeAlias = tuple[float, float]  # shares of a side that an axis lacks at its ends; may be < 0

SIDE = 64  # pixels of a thumbnail
_COARSE = SIDE // 2  # pixels for the first search, which decides about most pairs
_BLOCK = 4  # samples a side of a block
_MOST = 0.1  # share of a side that an edge moves
_STEPS = (0.01, 0.005, 0.0025)  # of the edges, after the first search by 0.02
_LEAST_CONTRAST = 2.0  # levels of 255; a flat image is compared by its colour

# Of the differences, in units of the contrast; measured on 785 drawings and photographs: see evals/LOG.md.
MOST_DIFFERENCE = 0.12
MOST_BLOCK_DIFFERENCE = 0.35
_UNRELATED = 0.5  # difference after the first search from which images are compared no further


def thumbnail(image: Image) -> Thumbnail:
    """Return an image as `SIDE` × `SIDE` RGB pixels, whatever its shape."""
    from PIL.Image import Resampling

    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Resampling.LANCZOS))


def is_near_copy(first: Thumbnail, second: Thumbnail) -> bool:
    """Return whether two images are the same, all over and in every block."""
    overall, block = differences(first, second)
    return overall <= MOST_DIFFERENCE and block <= MOST_BLOCK_DIFFERENCE


def differences(first: Thumbnail, second: Thumbnail) -> tuple[float, float]:
    """Return the RMS difference of two aligned images, and that of the block that differs most.

    The unit is the contrast of the second image, the RMS distance of its pixels from their mean colour; 0 is
    equal, and unrelated images are at about 1. Those that a first search finds unrelated are at infinity.
    """
    moved, still = first.astype(np.float32), second.astype(np.float32)
    edges = _align(moved, still)
    if edges is None:
        return inf, inf
    rows, columns = (_axis(pair, SIDE) for pair in edges)
    common = np.outer(rows.any(1), columns.any(1))
    whole = _axis((0.0, 0.0), SIDE)
    target = _sampled(still, whole, whole)
    squares = ((_sampled(moved, rows, columns) - target) ** 2).mean(2) * common
    count = len(whole) // _BLOCK
    blocks = squares.reshape(count, _BLOCK, count, _BLOCK).mean((1, 3))
    contrast = _contrast(target[common])
    return sqrt(squares.sum() / common.sum()) / contrast, sqrt(blocks.max()) / contrast


def _contrast(pixels: _Floats) -> float:
    return max(sqrt(((pixels - pixels.mean(0)) ** 2).mean()), _LEAST_CONTRAST)


def _align(moved: _Floats, still: _Floats) -> tuple[_Edges, _Edges] | None:
    """Return the edges of rows and columns at which two images differ least in the middle.

    None if they differ much even there.
    """
    rows: _Edges = (0.0, 0.0)
    columns: _Edges = (0.0, 0.0)
    small, target = _halved(moved), _middle(_halved(still))
    for _ in range(2):
        rows, _square = _best(small, target, _RANGE, columns)
        columns, square = _best(_turned(small), _turned(target), _RANGE, rows)
    if sqrt(square) > _UNRELATED * _contrast(target.reshape(-1, 3)):
        return None
    target = _middle(still)
    for step in _STEPS:
        rows, _square = _best(moved, target, _around(rows, step), columns)
        columns, _square = _best(_turned(moved), _turned(target), _around(columns, step), rows)
    return rows, columns


def _halved(image: _Floats) -> _Floats:
    return cast(_Floats, image.reshape(_COARSE, 2, _COARSE, 2, 3).mean((1, 3)))


def _around(edges: _Edges, step: float) -> tuple[_Edges, ...]:
    moves = (-step, 0.0, step)
    return tuple((round(edges[0] + a, 4), round(edges[1] + b, 4)) for a, b in product(moves, moves))


def _turned(image: _Floats) -> _Floats:
    return image.transpose(1, 0, 2)


def _middle(image: _Floats) -> _Floats:
    axis = _axis((0.0, 0.0), len(image), middle=True)
    return _sampled(image, axis, axis)


def _best(
    image: _Floats, target: _Floats, candidates: tuple[_Edges, ...], other: _Edges
) -> tuple[_Edges, float]:
    """Return the edges of the first axis with the least difference; the second axis has those of `other`."""
    side = len(image)
    reduced = np.matmul(_axis(other, side, middle=True), image).reshape(side, -1)
    bank = _bank(candidates, side).reshape(-1, side)
    sampled = (bank @ reduced).reshape(len(candidates), -1)
    squares = ((sampled - target.reshape(1, -1)) ** 2).mean(1)
    place = int(squares.argmin())
    return candidates[place], float(squares[place])


def _sampled(image: _Floats, rows: _Floats, columns: _Floats) -> _Floats:
    """Return an image with both axes sampled, [rows, columns, 3]."""
    return cast(_Floats, np.tensordot(rows, np.matmul(columns, image), (1, 0)))


@lru_cache(maxsize=4096)
def _axis(edges: _Edges, side: int, middle: bool = False) -> _Floats:
    """Return the weights of an axis, [samples, side]: rows of zeros are outside the image.

    The samples are half as many as pixels, so that neither the noise nor the blur of a copy counts.
    """
    cells = side // 2
    places = (np.arange(cells) + 0.5) / cells
    if middle:  # what both images show, however the edges are
        places = places[(places > _MOST) & (places < 1 - _MOST)]
    span = 1 - sum(edges)
    centres = (edges[0] + places * span) * side - 0.5
    reach = span * side / cells
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(side)) / reach)
    inside = (centres >= 0.4) & (centres <= side - 1.4)
    weights *= inside[:, None] / np.maximum(weights.sum(1, keepdims=True), 1e-6)
    return cast(_Floats, weights.astype(np.float32))


@lru_cache(maxsize=64)
def _bank(candidates: tuple[_Edges, ...], side: int) -> _Floats:
    """Return the weights for several edges, [candidates, samples, side]."""
    return np.stack([_axis(edges, side, middle=True) for edges in candidates])


_STOPS = tuple(round(0.02 * step, 2) for step in range(-5, 6))  # to `_MOST` on either side
_RANGE: tuple[_Edges, ...] = tuple(product(_STOPS, _STOPS))
