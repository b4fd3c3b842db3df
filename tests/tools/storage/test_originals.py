"""The signed file in which an image was received stays beside it, unchanged."""

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support.signed_files import encoded, signed

from pleinair.tools.storage.artifacts import (
    ORIGINAL_KEY,
    ArtifactStore,
    Original,
    original_of,
    with_original,
)
from pleinair.tools.types import Picture
from pleinair.tools.worker.process import pack, unpack

KINDS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}


def gradient() -> Image.Image:
    return Image.radial_gradient("L").convert("RGB")


@pytest.mark.parametrize("kind", KINDS)
def test_signed_bytes_are_stored_adopted_and_removed_with_the_image(tmp_path: Path, kind: str) -> None:
    store, other = ArtifactStore(tmp_path / "a"), ArtifactStore(tmp_path / "b")
    data = signed(gradient(), kind)
    picture = store.once("key", lambda: with_original(gradient(), data))
    assert store.original(picture) == Original(KINDS[kind], data)
    assert picture == ArtifactStore(tmp_path / "plain").put(gradient())
    other.adopt(picture, store)
    assert other.original(picture) == Original(KINDS[kind], data)
    other.remove(picture)
    other.remove(picture)
    assert not [path for path in (tmp_path / "b").rglob("*") if path.is_file()]


def test_unsigned_bytes_are_not_kept(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    picture = store.put(with_original(gradient(), encoded(gradient(), "JPEG")))
    assert store.original(picture) is None
    assert store.original(Picture(sha256="0" * 64, width=1, height=1)) is None


def test_signed_bytes_cross_from_a_worker() -> None:
    data = signed(gradient(), "JPEG")
    assert original_of(unpack(pack(with_original(gradient(), data)))) == data
    assert original_of(unpack(pack(gradient()))) == b""


def test_a_file_cannot_state_an_original(tmp_path: Path) -> None:
    note = PngInfo()
    note.add_text(ORIGINAL_KEY, "bytes")
    gradient().save(tmp_path / "a.png", pnginfo=note)
    with Image.open(tmp_path / "a.png") as opened:
        assert ORIGINAL_KEY in opened.info and original_of(opened) == b""
