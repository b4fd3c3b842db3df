"""Boxes in a model's answer, in the convention of its family, as fractions of width and height.

A model is asked for fractions. One that was trained on another convention may answer in it all the same:
numbers from 0 to 1 are always fractions, others are read by the convention of the model's family, or by what
all boxes of the reply leave possible. Where two readings are possible, or a box lies outside the image, there
is no box: a wrong one would spoil crops and inpainting unnoticed.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from pleinair.tools.mllm.reading import plain_key
from pleinair.tools.types import Box

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage

# The unit, then the order of the numbers if it is not x0, y0, x1, y1: "yxyx" is y0, x0, y1, x1, "xywh" is the
# upper left corner, width and height. Pixels are those of the image as sent.
Convention = Literal[
    "fractions",
    "fractions_xywh",
    "percent",
    "thousandths",
    "thousandths_yxyx",
    "thousandths_xywh",
    "pixels",
    "pixels_xywh",
]
BoxConvention = Literal[Convention, "auto", "none"]
_Order = Literal["xyxy", "yxyx", "xywh"]
_Numbers = tuple[float, float, float, float]

# What each family writes, as its authors or users describe it; checked against their threads for Qwen, Kimi,
# InternVL and MiniCPM, and for none of them with the weights. The first pattern that is
# found in the model's name counts. Not listed: names that move between versions of two conventions, such as
# qwen-vl-max, and families without a statement, such as Gemma 3. Qwen2.5 counts pixels of the image after
# rounding both sides to a multiple of 28, which is 1.6 % less at 512 pixels.
FAMILIES: tuple[tuple[str, Convention], ...] = (
    (r"qwen-?2[._]5-?vl|qwen-?2[._]5-?omni|mimo-?vl", "pixels"),
    (r"qwen-?2-?vl|qwen-?3-?vl|qwen-?3[._][5-9]|qwen-?3-?omni", "thousandths"),
    (r"gemini|gemma-?4", "thousandths_yxyx"),
    (r"glm-?4[._]\d-?v|glm-?5[._]?\d*-?v|cogvlm", "thousandths"),
    (r"intern-?(?:vl|s1)|minicpm-?[vo]|deepseek-?vl|doubao|seed-?1[._]", "thousandths"),
    (r"kimi-?vl|kimi-?k2[._]5|llava", "fractions"),
    (r"molmo", "percent"),
)
BOX_KEYS = ("box", "bbox", "bbox_2d", "box_2d", "bounding_box", "boundingbox")

_HAIR = 0.02  # of the image's side; a box over the edge by less is clipped
_LEAST = 0.002  # of the image's side; a smaller box is none
_SCALES = {"fractions": 1.0, "percent": 100.0, "thousandths": 1000.0}
_CORNERS = (("x0", "y0", "x1", "y1"), ("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"))
_SIDES = ("left", "top", "right", "bottom")
_EXTENTS = (("left", "top", "width", "height"), ("x", "y", "width", "height"), ("x", "y", "w", "h"))
_NUMBER = re.compile(r"-?\d{1,9}(?:\.\d{1,17})?(?:e-?\d{1,2})?")
_AROUND_NUMBERS = re.compile(
    r"<\|?/?(?:begin_of_|end_of_)?(?:box|bbox|quad|det)(?:_start|_end)?\|?>|bbox|box|px|[\s,;:=()\[\]{}]+",
    re.I,
)


@dataclass(frozen=True, slots=True)
class _Quad:
    """Four numbers with the order that their keys state, if they do."""

    numbers: _Numbers
    order: _Order | None = None
    fractions: bool = False  # they were percentages


@dataclass(frozen=True, slots=True)
class Frame:
    """What the numbers of a box mean: a convention, and the size of the image as the model saw it."""

    convention: BoxConvention = "fractions"
    size: tuple[int, int] | None = None  # pixels of the image as sent; None: unknown

    def read(self, boxes: Sequence[tuple[str, Any]]) -> list[Box | None]:
        """Read all boxes of one reply, each with its key; None where there is none or it is not certain."""
        quads = [_quad(value, key) for key, value in boxes]
        numbers = [quad.numbers for quad in quads if quad and not quad.fractions]
        unit, order = self._unit(quads, numbers)
        placed = [self._scaled(quad, unit) if quad else None for quad in quads]
        order = _order([quad.numbers for quad in placed if quad and quad.order is None], order)
        return [_inside(_corners(quad.numbers, quad.order or order)) if quad else None for quad in placed]

    def _unit(self, quads: Sequence[_Quad | None], numbers: Sequence[_Numbers]) -> tuple[str, _Order]:
        """Return "fractions", "percent", "thousandths", "pixels" or "", and the order of the numbers."""
        if all(-_HAIR <= number <= 1 + _HAIR for box in numbers for number in box):
            order = "xywh" if self.convention.endswith("_xywh") else "xyxy"
            return ("" if self.convention == "none" else "fractions"), cast(_Order, order)
        if self.convention not in ("auto", "none"):
            unit, _, order = self.convention.partition("_")
            return unit, cast(_Order, order or "xyxy")
        if self.convention == "none" or self.size is None:
            return "", "xyxy"
        return self._possible(quads, numbers), "xyxy"

    def _possible(self, quads: Sequence[_Quad | None], numbers: Sequence[_Numbers]) -> str:
        """Return the one unit in which all boxes lie inside the image, if their order is certain too."""
        assert self.size is not None
        ends = [max(box[0::2]) for box in numbers], [max(box[1::2]) for box in numbers]
        in_pixels = all(max(end) <= side * (1 + _HAIR) for end, side in zip(ends, self.size, strict=True))
        in_thousandths = max(max(end) for end in ends) <= 1000 * (1 + _HAIR)
        if in_pixels and in_thousandths:
            return "pixels" if all(abs(side - 1000) <= 1000 * _HAIR for side in self.size) else ""
        ordered = all(quad is None or quad.order for quad in quads)
        return "pixels" if in_pixels else "thousandths" if in_thousandths and ordered else ""

    def _scaled(self, quad: _Quad, unit: str) -> _Quad | None:
        """Return numbers as fractions, in their order; None without a unit."""
        if quad.fractions:
            return quad
        if not unit or (unit == "pixels" and self.size is None):
            return None
        width, height = cast(tuple[int, int], self.size) if unit == "pixels" else (_SCALES[unit],) * 2
        across = (height, width) * 2 if quad.order == "yxyx" else (width, height) * 2
        scaled = tuple(number / side for number, side in zip(quad.numbers, across, strict=True))
        as_asked = unit == "fractions" and quad.order == "yxyx"  # it follows the request, not its training
        return _Quad(cast(_Numbers, scaled), None if as_asked else quad.order)


def frame_of(model: BaseChatModel, png: bytes, reply: AIMessage) -> Frame:
    """Return the frame of a reply about one image, PNG bytes.

    The model may have a field `boxes`, a convention or "auto", and state in the reply's metadata as
    `image_side` to how many pixels the longer side was scaled down.
    """
    return Frame(convention_of(model), _sent_size(png, reply.response_metadata.get("image_side")))


def convention_of(model: object) -> BoxConvention:
    """Return the convention of a model: that of its field `boxes`, else that of its family, else "auto"."""
    convention = cast(BoxConvention, getattr(model, "boxes", "auto"))
    if convention != "auto":
        return convention
    name = str(getattr(model, "model_name", "") or getattr(model, "model", ""))
    matches = (convention for pattern, convention in FAMILIES if re.search(pattern, name, re.IGNORECASE))
    return next(matches, "auto")


def _sent_size(png: bytes, side: object) -> tuple[int, int] | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(png)) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError):
        return None
    scale = min(1.0, side / max(width, height)) if isinstance(side, int) else 1.0
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _quad(value: Any, key: str = "") -> _Quad | None:
    """Return the four numbers of a box in any of its forms; None if it is none, empty or several."""
    hint: _Order | None = {"box2d": "yxyx", "bbox2d": "xyxy"}.get(plain_key(key))  # type: ignore[assignment]
    if isinstance(value, list) and len(value) == 1:
        return _quad(value[0], key)
    if isinstance(value, str):
        return _written(value, hint)
    if isinstance(value, dict):
        return _keyed(value)
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, list) for part in value):
        value = [*value[0], *value[1]]
    numbers = _four(value)
    return _Quad(numbers, hint) if numbers and any(numbers) else None


def _written(text: str, hint: _Order | None) -> _Quad | None:
    numbers = _NUMBER.findall(text)
    rest = _AROUND_NUMBERS.sub("", _NUMBER.sub("", text))
    if len(numbers) != 4 or rest not in ("", "%%%%"):
        return None
    scale = 100 if rest else 1
    quad = cast(_Numbers, tuple(float(number) / scale for number in numbers))
    return _Quad(quad, hint, fractions=bool(rest)) if any(quad) else None


def _keyed(box: dict[str, Any]) -> _Quad | None:
    plain = {plain_key(key): value for key, value in box.items()}
    for key in BOX_KEYS:
        if (inner := plain.get(plain_key(key))) is not None:
            return _quad(inner, key)
    if "topleft" in plain and "bottomright" in plain:
        return _quad([plain["topleft"], plain["bottomright"]])
    corners: list[tuple[Sequence[str], _Order]] = [(keys, "xyxy") for keys in (*_CORNERS, _SIDES)]
    for keys, order in (*corners, *((keys, "xywh") for keys in _EXTENTS)):
        if set(keys) <= set(plain) and (numbers := _four([plain[key] for key in keys])):
            return _Quad(numbers, order) if any(numbers) else None
    return None


def _four(value: Any) -> _Numbers | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [_number(item) for item in value]
    return None if None in numbers else cast(_Numbers, tuple(numbers))


def _number(value: Any) -> float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
        return None
    return float(value) if math.isfinite(value) else None


def _order(boxes: Sequence[_Numbers], order: _Order) -> _Order:
    """Return the order of the numbers: width and height where no other reading of all boxes is possible.

    Corners that are merely exchanged would look alike, so one box must have exactly one axis reversed.
    """
    if order == "xywh" or all(box[2] > box[0] and box[3] > box[1] for box in boxes):
        return order
    one_axis = any((box[2] > box[0]) != (box[3] > box[1]) for box in boxes)
    fit = all(min(box[2:]) > 0 and max(box[0] + box[2], box[1] + box[3]) <= 1 + _HAIR for box in boxes)
    return "xywh" if order == "xyxy" and one_axis and fit else order


def _corners(numbers: _Numbers, order: _Order) -> _Numbers:
    a, b, c, d = numbers
    return (b, a, d, c) if order == "yxyx" else (a, b, a + c, b + d) if order == "xywh" else numbers


def _inside(box: _Numbers) -> Box | None:
    """Return a box that lies in the image, its edges clipped by a hair at most; None if it does not."""
    if min(box) < -_HAIR or max(box) > 1 + _HAIR:
        return None
    x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in box)
    return (x0, y0, x1, y1) if min(x1 - x0, y1 - y0) >= _LEAST else None
