"""One scene in every colour space is read as the same image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms
from support.colour_files import PROPHOTO, SRGB, camera_file, in_space, inks, printer, scene, tagged
from support.hostile_files import save

from pleinair.tools.images.decoding import Note, opened
from pleinair.tools.images.profiles import ADOBE_RGB, DISPLAY_P3, icc_profile
from pleinair.tools.images.reading import read_picture
from pleinair.tools.retrieval.encoder import OpenClipEncoder

SCENE = scene()


def lab_file() -> bytes:
    spaces = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(SCENE, *spaces, outputMode="LAB")
    assert converted is not None
    return save(converted, "TIFF")


def opaque(image: Image.Image) -> Image.Image:
    return image.convert("RGBA")


FILES: dict[str, Callable[[], bytes]] = {
    "Adobe RGB": lambda: tagged(SCENE, ADOBE_RGB),
    "Adobe RGB, JPEG": lambda: save(
        in_space(SCENE, ADOBE_RGB), "JPEG", quality=98, subsampling=0, icc_profile=icc_profile(ADOBE_RGB)
    ),
    "Adobe RGB by EXIF": lambda: camera_file(SCENE),
    "Adobe RGB, WebP": lambda: save(
        in_space(SCENE, ADOBE_RGB), "WEBP", lossless=True, icc_profile=icc_profile(ADOBE_RGB)
    ),
    "Display P3": lambda: tagged(SCENE, DISPLAY_P3),
    "Display P3, alpha": lambda: save(
        opaque(in_space(SCENE, DISPLAY_P3)), "PNG", icc_profile=icc_profile(DISPLAY_P3)
    ),
    "Display P3, HEIC": lambda: save(
        in_space(SCENE, DISPLAY_P3), "HEIF", quality=-1, chroma=444, icc_profile=icc_profile(DISPLAY_P3)
    ),
    "Display P3, AVIF": lambda: save(
        in_space(SCENE, DISPLAY_P3), "AVIF", quality=100, icc_profile=icc_profile(DISPLAY_P3)
    ),
    "ProPhoto": lambda: tagged(SCENE, PROPHOTO),
    "ProPhoto, TIFF": lambda: tagged(SCENE, PROPHOTO, "TIFF"),
    "CMYK": lambda: save(SCENE.convert("CMYK"), "TIFF"),
    "CMYK of a printer": lambda: save(inks(SCENE), "TIFF", icc_profile=printer()),
    "CMYK of a printer, JPEG": lambda: save(inks(SCENE), "JPEG", quality=98, icc_profile=printer()),
    "CIELAB": lab_file,
}
PLAIN = ("CMYK", "CIELAB")  # right without a profile


@pytest.fixture(scope="module")
def encoder() -> OpenClipEncoder:
    return OpenClipEncoder("local-dir:pocket/encoder", device="cpu", threads=1)


def difference(first: Image.Image, second: Image.Image) -> float:
    """Return the mean difference in levels of 255."""
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).mean())


@pytest.mark.parametrize("name", FILES)
def test_a_scene_is_the_same_in_every_space(name: str, encoder: OpenClipEncoder) -> None:
    data = FILES[name]()
    image = read_picture(data)
    assert difference(image, SCENE) < 1.6
    first, second = encoder.encode_images([image, SCENE])
    assert first @ second > 0.99
    if name not in PLAIN:
        assert difference(opened(data).image.convert("RGB"), SCENE) > 2  # it differs without its profile


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize(
    "profile", [icc_profile(SRGB), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()]
)
def test_srgb_pixels_are_not_touched(kind: str, profile: bytes) -> None:
    with_profile = read_picture(save(SCENE, kind, icc_profile=profile))
    assert with_profile.tobytes() == read_picture(save(SCENE, kind)).tobytes()


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"no profile"),
        ("RGB", icc_profile(ADOBE_RGB)[:200]),
        ("RGB", printer()),
        ("CMYK", icc_profile(ADOBE_RGB)),
        ("CMYK", icc_profile(SRGB)),
        ("L", printer()),
    ],
)
def test_a_damaged_or_foreign_profile_is_ignored_with_a_note(mode: str, profile: bytes) -> None:
    image = SCENE.convert(mode)
    data = save(image, "TIFF", icc_profile=profile)
    assert opened(data).note == Note.PROFILE
    assert read_picture(data).tobytes() == image.convert("RGB").tobytes()


def test_a_grey_image_keeps_the_profile_of_its_colours() -> None:
    grey = SCENE.convert("L")
    image = read_picture(save(grey, "PNG", icc_profile=icc_profile(ADOBE_RGB)))
    expected = in_space(grey.convert("RGB"), SRGB)
    assert 0.1 < difference(image, expected) < 4  # the curves of Adobe RGB and sRGB are near each other
    assert len(set(image.getpixel((40, 40)) or ())) == 1  # type: ignore[arg-type]
