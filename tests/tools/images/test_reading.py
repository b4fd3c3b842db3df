"""Reading of odd and hostile image files, which may raise nothing but `BadPicture`."""

from __future__ import annotations

import os
import random
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.hostile_files import BAD, GOOD, GRADIENT, animation, bomb, deep, mutate, rotated, save

from pleinair.tools.images.decoding import ReadOptions
from pleinair.tools.images.reading import BadPicture, read_picture, to_rgb


@pytest.mark.parametrize("name", GOOD)
def test_every_format_becomes_bare_rgb(name: str) -> None:
    image = read_picture(GOOD[name]())
    assert image.mode == "RGB"
    assert image.info == {}
    assert image.getextrema() != ((0, 0), (0, 0), (0, 0))


@pytest.mark.parametrize("name", ["png", "bmp"])
def test_lossless_pixels_are_kept(name: str) -> None:
    assert np.array_equal(np.asarray(read_picture(GOOD[name]())), GRADIENT)


def test_a_path_and_its_bytes_are_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "finch.png"
    path.write_bytes(GOOD["png"]())
    assert (
        read_picture(path).tobytes()
        == read_picture(str(path)).tobytes()
        == read_picture(GOOD["png"]()).tobytes()
    )


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = np.asarray(read_picture(deep()))[:, :, 0]
    expected = np.round(np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.uint16) / 257)
    assert np.array_equal(grey, expected)
    assert (grey.min(), grey.max()) == (0, 255)


def test_each_of_sixteen_bits_levels_is_rounded_to_the_nearest_of_eight() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    grey = np.asarray(read_picture(save(Image.fromarray(levels), "PNG")))[:, :, 0]
    assert np.array_equal(grey, (levels.astype(int) + 128) // 257)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_is_read(kind: str) -> None:
    red, green, blue = np.asarray(read_picture(animation(kind)))[5, 10].tolist()
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    corner = {1: (0, 0), 2: (-1, 0), 3: (-1, -1), 4: (0, -1), 5: (0, 0), 6: (-1, 0), 7: (-1, -1), 8: (0, -1)}
    image = read_picture(rotated(orientation))
    assert image.size == ((40, 20) if orientation < 5 else (20, 40))
    x, y = corner[orientation]
    assert image.getpixel((x % image.width, y % image.height)) == (0, 0, 0)


def test_transparent_pixels_turn_white() -> None:
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half.putpixel((0, 0), (255, 0, 0, 255))
    image = read_picture(save(half, "PNG"))
    assert image.getpixel((0, 0)) == (255, 0, 0)
    assert image.getpixel((3, 3)) == (255, 255, 255)


def test_a_transparent_palette_entry_turns_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert read_picture(save(image, "PNG", transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    assert read_picture(save(image, "GIF", transparency=1)).getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_is_not_inverted() -> None:
    image = read_picture(save(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = np.asarray(image)[8, 8].tolist()
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("name", BAD)
def test_an_unusable_file_has_a_short_reason(name: str) -> None:
    started = time.process_time()
    with pytest.raises(BadPicture) as error:
        read_picture(BAD[name]())
    assert time.process_time() - started < 2
    assert len(str(error.value)) < 100
    assert "0x" not in str(error.value)
    assert "<" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_a_bomb_is_refused_when_warnings_are_silent_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(BadPicture, match="pixels"):
            read_picture(bomb(8192, 16000))


def test_text_named_png_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "finch.png"
    path.write_text("not a finch", encoding="utf-8")
    with pytest.raises(BadPicture, match="not an image"):
        read_picture(path)


def test_a_file_over_the_byte_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReadOptions, "max_bytes", 100)
    path = tmp_path / "finch.png"
    path.write_bytes(GOOD["png"]())
    for source in (path, GOOD["png"]()):
        with pytest.raises(BadPicture, match="over"):
            read_picture(source)


@pytest.mark.parametrize("name", ["absent.png", ".", "nul\0.png"])
def test_a_path_that_cannot_be_opened_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadPicture):
        read_picture(f"{tmp_path}/{name}")


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadPicture, match="regular"):
        read_picture(tmp_path / "pipe.png")


@pytest.mark.parametrize("mode", ["F", "HSV"])
def test_pixels_without_an_agreed_range_are_refused(mode: str) -> None:
    with pytest.raises(BadPicture, match="pixels"):
        to_rgb(Image.new(mode, (2, 2)))


@pytest.mark.parametrize("strict", [True, False], ids=["warnings raise", "warnings pass"])
def test_a_mutated_file_is_read_or_refused(strict: bool) -> None:
    rng = random.Random(2026)
    originals = [make() for make in GOOD.values()]
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error" if strict else "ignore")
        for number in range(600):
            try:
                image = read_picture(mutate(originals[number % len(originals)], rng))
            except BadPicture:
                refused += 1
            else:
                assert image.mode == "RGB"
    assert 100 < refused < 600
