"""Plain JPEGs are decoded by torchvision as by the sandbox; here on the CPU, by the same function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from support.colour_files import camera_file, scene, tagged
from support.hostile_files import save

from pleinair.tools.images.decoding import ReadOptions
from pleinair.tools.images.gpu_jpeg import check_gpu_jpeg, decode_plain
from pleinair.tools.images.profiles import DISPLAY_P3
from pleinair.tools.images.reading import read_picture
from pleinair.tools.types import BadInput

SCENE = scene()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return save(SCENE, "JPEG", exif=exif)


OTHERS: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: save(SCENE, "PNG"),
    "turned": turned,
    "Display P3": lambda: tagged(SCENE, DISPLAY_P3, "JPEG"),
    "Adobe RGB by EXIF": lambda: camera_file(SCENE),
    "CMYK": lambda: save(SCENE.convert("CMYK"), "JPEG"),
    "no image": lambda: b"\xff\xd8\xff\xe0 and nothing else",
}


@pytest.mark.parametrize(("side", "factor"), [(0, 1), (100, 3)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_plain_jpeg_is_decoded_and_reduced(mode: str, side: int, factor: int) -> None:
    data = save(SCENE.resize((401, 303)).convert(mode), "JPEG", quality=95)
    (read,) = decode_plain([data], ReadOptions(side), "cpu")
    assert read is not None and read.size == (401, 303)
    expected = read_picture(data).reduce(factor)
    assert (read.image.mode, read.image.size) == ("RGB", expected.size)
    assert np.abs(np.asarray(read.image, int) - np.asarray(expected, int)).max() <= 1


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_left_to_the_sandbox(name: str) -> None:
    plain = save(SCENE, "JPEG")
    first, other, last = decode_plain([plain, OTHERS[name](), plain], ReadOptions(), "cpu")
    assert first and last and other is None


def test_more_pixels_than_allowed_are_left_to_the_sandbox() -> None:
    assert decode_plain([save(SCENE, "JPEG")], ReadOptions(max_pixels=100), "cpu") == [None]


def test_a_damaged_file_leaves_its_group_to_the_sandbox() -> None:
    good = save(SCENE, "JPEG")
    start = good.index(b"\xff\xda")
    assert decode_plain([good, good[:start]], ReadOptions(), "cpu") == [None, None]


def test_without_a_gpu_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="encoder.jpeg_decoder = 'cuda'.*no CUDA device.*'sandbox'") as refusal:
        check_gpu_jpeg("encoder.jpeg_decoder", "cuda")
    assert refusal.value.field == "encoder.jpeg_decoder"


def test_a_torchvision_that_cannot_decode_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(BadInput, match="torchvision cannot decode there"):
        check_gpu_jpeg("encoder.jpeg_decoder", "cuda:99")
    check_gpu_jpeg("encoder.jpeg_decoder", "cpu")
