"""Masks of edits: what is fully transparent changes, and all else stays to the bit."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pleinair.tools.images.decoding import ReadOptions
from pleinair.tools.images.masks import (
    blend,
    fade_weights,
    fitted,
    masked,
    masked_box,
    own_mask,
    unit_mask,
    with_mask,
)
from pleinair.tools.images.reading import read_picture
from pleinair.tools.images.sandbox import read_untrusted
from pleinair.tools.storage.artifacts import encode_png
from pleinair.tools.types import BadInput

RED, BLUE = (200, 10, 20), (10, 20, 220)


def clear_at(rows: slice, columns: slice, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Return a black mask that is transparent in some rows and columns."""
    pixels = np.zeros((size[1], size[0], 4), np.uint8)
    pixels[..., 3] = 255
    pixels[rows, columns, 3] = 0
    return Image.fromarray(pixels)


MASK = clear_at(slice(8, 32), slice(16, 48))


@pytest.mark.parametrize("read", [read_picture, read_untrusted])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB"])
def test_transparency_survives_reading_with_the_colours_below_it(
    read: Callable[[bytes, ReadOptions], Image.Image], mode: str
) -> None:
    image = Image.new("RGBA", (9, 7), (*RED, 255))
    image.putpixel((3, 2), (*BLUE, 0))
    image.putpixel((4, 2), (*BLUE, 99))
    file = io.BytesIO()
    image.convert(mode).save(file, "PNG")
    got = read(file.getvalue(), ReadOptions(alpha=True))
    assert (got.mode, got.size) == ("RGBA", (9, 7))
    alphas = np.asarray(got)[2, 2:5, 3].tolist()
    assert alphas == ([255, 255, 255] if mode == "RGB" else [255, 0, 99])
    if mode == "RGBA":
        assert got.tobytes() == image.tobytes()


def test_a_stored_mask_is_read_back_to_the_bit() -> None:
    image = with_mask(Image.new("RGB", MASK.size, RED), MASK)
    again = read_picture(encode_png(image, alpha=True), ReadOptions(alpha=True))
    assert again.tobytes() == image.tobytes()


def test_the_box_and_the_units_are_those_of_the_transparent_part() -> None:
    assert masked_box(MASK) == (0.25, 8 / 48, 0.75, 32 / 48)
    white = np.asarray(unit_mask(clear_at(slice(9, 10), slice(15, 17)), 8))
    rows, columns = np.nonzero(white == 255)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 15, 8, 23)
    assert set(np.unique(white)) == {0, 255}


def test_the_own_transparency_of_an_image_gets_the_colours_around_it() -> None:
    pixels = np.full((64, 64, 4), (*RED, 255), np.uint8)
    pixels[8:56, 8:56] = 0
    pixels[0, 0] = (*RED, 100)
    image = own_mask(Image.fromarray(pixels))
    assert np.array_equal(masked(image), pixels[..., 3] == 0)
    inside, corner = image.getpixel((9, 30)), image.getpixel((0, 0))
    assert isinstance(inside, tuple) and np.abs(np.subtract(inside[:3], RED)).max() < 5
    assert isinstance(corner, tuple) and corner[1] > 100 and corner[3] == 255  # laid on white


def test_a_mask_of_another_size_or_of_nothing_or_of_everything_is_refused() -> None:
    base = Image.new("RGB", MASK.size, RED)
    with pytest.raises(BadInput, match="mask: 8 × 8 pixels; must have those of the base, 64 × 48"):
        with_mask(base, Image.new("RGBA", (8, 8)))
    bad = {
        "nothing would change": Image.new("RGBA", MASK.size, (0, 0, 0, 1)),
        "mask: no pixel of it is fully transparent": base,
        "all of it is fully transparent": Image.new("RGBA", MASK.size),
    }
    for words, mask in bad.items():
        with pytest.raises(BadInput, match=words):
            with_mask(base, mask)
    with pytest.raises(BadInput, match="base: all of it"):
        own_mask(Image.new("RGBA", MASK.size))


def test_a_scaled_mask_is_sharp_and_one_that_is_lost_is_refused() -> None:
    image = with_mask(Image.new("RGB", MASK.size, RED), MASK)
    small = fitted(image, (32, 24))
    assert masked_box(small) == masked_box(image)
    assert set(np.unique(np.asarray(small)[..., 3])) == {0, 255}
    speck = with_mask(Image.new("RGB", MASK.size, RED), clear_at(slice(0, 1), slice(0, 1)))
    with pytest.raises(BadInput, match="scaled to 8 × 8 pixels: no pixel"):
        fitted(speck, (8, 8))


@given(st.data())
def test_what_is_not_masked_stays_to_the_bit(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(2, 12)), data.draw(st.integers(2, 12))
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    changes = np.array(bits).reshape(height, width)
    changes[0, 0], changes[-1, -1] = True, False
    pixels = np.arange(height * width * 4, dtype=np.uint8).reshape(height, width, 4)
    pixels[..., 3] = np.where(changes, 0, 255)
    after = np.asarray(blend(Image.fromarray(pixels), Image.new("RGB", (width, height), BLUE)))
    assert np.array_equal(after[~changes], pixels[~changes][:, :3])
    weights = fade_weights(changes)
    assert (weights[~changes] == 0).all() and (weights[changes] > 0).all() and weights.max() == 1


def test_the_fade_is_by_the_distance_to_what_stays() -> None:
    weights = fade_weights(masked(MASK))
    assert (np.diff(weights[20, 15:20]) > 0).all()  # from the left edge inwards
    assert (weights[12:28, 20:44] == 1).all()
    at_the_border = fade_weights(masked(clear_at(slice(0, 48), slice(0, 32))))
    assert (at_the_border[:, :16] == 1).all()  # nothing stays beyond the image
