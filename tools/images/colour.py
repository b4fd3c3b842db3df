"""Conversion of an image's colours to sRGB by its profile, with LittleCMS.

The intent is relative colorimetric with black point compensation: colours that sRGB has stay as they are, the
others move to its edge. Pixels whose profile differs from sRGB by rounding only are not touched. Not covered:
high dynamic range (PQ, HLG), and PNG's `gAMA` and `cHRM`.
"""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import chain, product
from typing import Any

from PIL import Image, ImageChops, ImageCms

from pleinair.tools.images.profiles import ADOBE_RGB, DISPLAY_P3, icc_profile

MAX_PROFILE = 4 * 2**20  # bytes; those of printers have some 2 MiB
_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # modes by ICC.1:2010, table 19
_SAME = 2  # levels of 255 by which the sRGB profiles in use differ
_GRID = [round(255 * step / 8) for step in range(9)]
_EXIF_IFD, _INTEROP_IFD, _COLOUR_SPACE, _INTEROP_INDEX = 0x8769, 0xA005, 0xA001, 1
_UNCALIBRATED = 0xFFFF  # value of `_COLOUR_SPACE`, with which cameras mark Adobe RGB (DCF 2.0)
_NCLX_P3 = (12, (1, 2, 6, 13))  # primaries; curves that sRGB's stands for: ITU-T H.273


class BadProfile(ValueError):
    """A profile is damaged, or of other colours than its image."""


class Colours:
    """Conversion from a profile to sRGB for images whose mode, without transparency, is `mode`."""

    def __init__(self, mode: str, transform: ImageCms.ImageCmsTransform) -> None:
        self.mode = mode
        self._transform = transform

    def convert(self, image: Image.Image) -> Image.Image:
        """Convert an image of the mode `mode` to RGB."""
        converted = ImageCms.applyTransform(image, self._transform)
        assert converted is not None  # it is None only if done in place
        return converted


def colours_of(image: Image.Image) -> Colours | None:
    """Return the conversion that an opened image needs, None for sRGB; raise `BadProfile`."""
    if image.mode == "LAB":
        return _lab()
    profile = image.info.get("icc_profile") or _implied(image)
    if not profile:
        return None
    if not isinstance(profile, bytes) or len(profile) > MAX_PROFILE:
        raise BadProfile
    colours = _colours(profile)
    if (image.mode == "CMYK") != (colours is not None and colours.mode == "CMYK"):
        raise BadProfile
    return colours


def _implied(image: Image.Image) -> bytes | None:
    """Return the profile that a file names without embedding it."""
    nclx: dict[str, Any] = image.info.get("nclx_profile") or {}
    primaries, curves = _NCLX_P3
    if nclx.get("color_primaries") == primaries and nclx.get("transfer_characteristics") in curves:
        return icc_profile(DISPLAY_P3)
    exif = image.getexif()
    if exif.get_ifd(_EXIF_IFD).get(_COLOUR_SPACE) not in (2, _UNCALIBRATED):
        return None
    index = str(exif.get_ifd(_INTEROP_IFD).get(_INTEROP_INDEX, "")).rstrip("\0 ")
    is_adobe = exif.get_ifd(_EXIF_IFD).get(_COLOUR_SPACE) == 2 or index == "R03"
    return icc_profile(ADOBE_RGB) if is_adobe else None


@lru_cache(maxsize=16)
def _colours(data: bytes) -> Colours | None:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        mode = _SPACES[str(profile.profile.xcolor_space)]
        colours = Colours(mode, _transform(profile, mode))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError, AttributeError):
        raise BadProfile from None
    return None if _is_srgb(colours) else colours


@lru_cache(maxsize=1)
def _lab() -> Colours:
    return Colours("LAB", _transform(ImageCms.createProfile("LAB"), "LAB"))


def _transform(profile: Any, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _is_srgb(colours: Colours) -> bool:
    if colours.mode == "CMYK":
        return False
    levels = Image.frombytes("L", (16, 16), bytes(range(256)))
    if colours.mode == "RGB":
        levels = Image.frombytes("RGB", (27, 27), bytes(chain(*product(_GRID, repeat=3))))
    difference = ImageChops.difference(levels.convert("RGB"), colours.convert(levels))
    return max(high for _, high in difference.getextrema()) <= _SAME  # type: ignore[misc]
