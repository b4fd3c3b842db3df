"""Files with C2PA manifests are told from others by their containers, whatever their bytes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.signed_files import MANIFEST, encoded, signed

from pleinair.tools.images.signed import SUFFIXES, signed_suffix

IMAGE = Image.radial_gradient("L").convert("RGB")
KINDS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_is_found_in_its_place_only(kind: str) -> None:
    assert signed_suffix(signed(IMAGE, kind)) == KINDS[kind] and KINDS[kind] in SUFFIXES
    plain = encoded(IMAGE, kind)
    assert signed_suffix(plain) == signed_suffix(plain + MANIFEST) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_raises_nothing(kind: str) -> None:
    data, rng = signed(IMAGE, kind), random.Random(1)
    for _ in range(300):
        changed = bytearray(data[: rng.randrange(len(data))])
        for _ in range(rng.randrange(8)):
            if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        assert signed_suffix(bytes(changed)) in ("", KINDS[kind])


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"RIFF1234WEBP", b"\xff\xd8"]))
def test_any_bytes_are_read(data: bytes, head: bytes) -> None:
    assert signed_suffix(head + data) in ("", *SUFFIXES)
