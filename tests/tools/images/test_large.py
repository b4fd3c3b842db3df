"""Large photographs are read reduced, files that end too soon as far as they go, and blank ones are told."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from support.colour_files import scene
from support.hostile_files import GOOD, rotated, save

from pleinair.tools.images.decoding import Note, ReadOptions, Unreadable, opened
from pleinair.tools.images.reading import BadPicture, is_blank, read_picture
from pleinair.tools.images.sandbox import read_untrusted


def grey(width: int, height: int, kind: str, **options: object) -> bytes:
    """Return a file of a large grey ramp, which is small on the disk."""
    return save(Image.linear_gradient("L").resize((width, height)), kind, **options)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(12_000, 9_000, (6_000, 4_500)), (20_000, 400, (5_000, 100))],
)
def test_a_large_jpeg_is_reduced_while_it_is_decoded(
    width: int, height: int, expected: tuple[int, int]
) -> None:
    image = read_untrusted(grey(width, height, "JPEG"))
    assert image.size == expected
    assert np.asarray(image, int)[[2, -3], 50, 0] == pytest.approx([0, 255], abs=10)


def test_a_panorama_is_reduced_after_it_is_decoded() -> None:
    assert read_untrusted(grey(20_000, 400, "PNG")).size == (6_667, 134)


def test_the_setting_allows_more_pixels() -> None:
    data = grey(10_000, 5_100, "PNG")
    with pytest.raises(BadPicture) as error:
        read_untrusted(data)
    assert error.value.reason == Unreadable.TOO_LARGE
    assert read_untrusted(data, ReadOptions(max_pixels=60_000_000)).size == (5_000, 2_550)
    with pytest.raises(BadPicture):
        read_untrusted(grey(1_200, 1_000, "PNG"), ReadOptions(max_pixels=1_000_000))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_a_reduced_image_is_the_scene_in_small(kind: str) -> None:
    data = save(scene(600, 450), kind)
    small = read_untrusted(data, ReadOptions(side=100))
    assert 100 <= min(small.size) < 200
    expected = read_picture(data).resize(small.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(small, float) - np.asarray(expected, float)).mean() < 1.5


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("side", [64, 96, 128, 1024])
def test_a_small_image_is_never_reduced(kind: str, side: int) -> None:
    data = save(scene(96, 64), kind)
    assert read_untrusted(data, ReadOptions(side)).tobytes() == read_picture(data).tobytes()


def test_a_reduced_image_is_upright_and_its_transparency_white() -> None:
    assert read_picture(rotated(6), ReadOptions(side=10)).size == (10, 20)
    ghost = Image.new("RGBA", (400, 400), (255, 0, 0, 0))
    assert read_picture(save(ghost, "PNG"), ReadOptions(side=50)).getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize(
    ("kind", "options", "rows"),
    [("JPEG", {}, 500), ("JPEG", {"progressive": True}, 750), ("PNG", {}, 500)],
)
def test_a_file_that_ends_too_soon_is_used_as_far_as_it_goes(
    kind: str, options: dict[str, bool], rows: int
) -> None:
    image = scene(1_000, 750)
    data = save(image, kind, **options)
    for missing in (40, len(data) // 10):
        read = opened(data[:-missing])
        assert read.note == Note.CUT
        assert read.image.width == 1_000 and rows <= read.image.height <= 750
    if "progressive" not in options:
        with pytest.raises(BadPicture):
            read_picture(data[: len(data) // 2])
    whole, cut = (np.asarray(read_picture(part), float) for part in (data, data[:-40]))
    assert np.abs(whole[:500] - cut[:500]).mean() < (1.5 if options else 0.1)


@pytest.mark.parametrize("name", GOOD)
def test_every_format_is_read_in_the_limited_process(name: str) -> None:
    assert read_untrusted(GOOD[name]()).tobytes() == read_picture(GOOD[name]()).tobytes()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGB", (50, 50), "white"), True),
        (Image.effect_noise((50, 50), 0.2).convert("RGB"), True),
        (Image.effect_noise((50, 50), 9).convert("RGB"), False),
        (scene(), False),
    ],
)
def test_a_blank_image_is_told(image: Image.Image, expected: bool) -> None:
    assert is_blank(image) is expected
