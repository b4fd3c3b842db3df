"""The cost of an image is attached to it, and only a generator can attach it."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pleinair.tools.http.prices import Price
from pleinair.tools.storage.artifacts import SPENT_KEY, charged, spent_on
from pleinair.tools.types import Usage
from pleinair.tools.worker.process import pack, unpack

PRICE = Price(read=1.0, read_images=2.0, written=10.0)


def test_the_cost_crosses_from_a_worker() -> None:
    image = Image.radial_gradient("L").convert("RGB")
    assert spent_on(unpack(pack(charged(image, Usage(usd=0.5))))) == Usage(usd=0.5)
    assert spent_on(unpack(pack(Image.new("RGB", (4, 2))))) == Usage()


def test_a_file_cannot_state_a_cost() -> None:
    note, file = PngInfo(), io.BytesIO()
    note.add_text(SPENT_KEY, Usage(usd=-9).model_dump_json())
    Image.new("RGB", (4, 2)).save(file, "PNG", pnginfo=note)
    opened = Image.open(file)
    assert SPENT_KEY in opened.info and spent_on(opened) == Usage()


@pytest.mark.parametrize(
    ("used", "usd"),
    [
        ({"input_tokens": 30, "output_tokens": 100}, 30 * 1 + 100 * 10),
        (
            {"input_tokens": 30, "output_tokens": 100, "input_tokens_details": {"image_tokens": 20}},
            10 * 1 + 20 * 2 + 100 * 10,
        ),
        ({"input_tokens": 5, "input_tokens_details": {"image_tokens": 99}}, 5 * 2),
        ({"input_tokens": -5, "output_tokens": "100"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_only_positive_counts_are_priced(used: Any, usd: float | None) -> None:
    spent = PRICE.of_usage(as_object(used))
    assert (spent and spent.usd) == (None if usd is None else pytest.approx(usd / 1e6))


def as_object(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return SimpleNamespace(**{name: as_object(item) for name, item in value.items()})
