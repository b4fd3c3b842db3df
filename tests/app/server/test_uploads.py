"""Images that a browser sends: only pixels are kept, and a name is only shown."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from starlette.datastructures import FormData, Headers, UploadFile

from pleinair.app.api import home
from pleinair.app.server.app import create
from pleinair.app.server.site import Options
from pleinair.app.server.uploads import MAX_NAME, display_name, stored, uploads
from pleinair.tools.storage.folder import Folder
from pleinair.tools.types import BadInput

TURNED = 6  # EXIF orientation of a camera that was held upright


def upload(data: bytes, name: str = "wren.png") -> UploadFile:
    headers = Headers({"content-type": "text/html"})  # what a browser claims does not count
    return UploadFile(io.BytesIO(data), filename=name, size=len(data), headers=headers)


def encoded(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 20), "teal").save(file, kind, **options)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = TURNED
    return encoded("JPEG", exif=exif)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_an_image_is_stored_and_served_by_its_digest(place: Path, kind: str) -> None:
    picture, name = stored(upload(encoded(kind), "my wren.png"), home())
    assert (picture.width, picture.height, name) == (40, 20, "my wren.png")
    with TestClient(create(Options(workers=0), home()), "http://127.0.0.1:8800") as client:
        response = client.get(f"/images/{picture.sha256}.png")
        assert response.headers["content-type"] == "image/png"
        assert "immutable" in response.headers["cache-control"]
        assert Image.open(io.BytesIO(response.content)).size == (40, 20)
        for other in ("0" * 64, picture.sha256.upper(), "..%2f..%2fruns", picture.sha256[:63]):
            assert client.get(f"/images/{other}.png").status_code == 404


def test_an_image_is_stored_upright_without_its_metadata(place: Path) -> None:
    picture, _ = stored(upload(turned()), home())
    assert (picture.width, picture.height) == (20, 40)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (lambda: b"", "the file is empty"),
        (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (lambda: b"<script>alert(1)</script>", "not an image"),
        (lambda: encoded("PNG")[:60], "damaged"),
    ],
)
def test_what_is_no_image_is_refused(place: Path, data: Callable[[], bytes], fault: str) -> None:
    with pytest.raises(BadInput, match=f"input image 'wren.png': .*{fault}"):
        stored(upload(data()), home())
    assert not Folder(home().input_images).sizes()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"), ("C:\\Users\\me\\wren.png", "wren.png"), ("", "image"),
        ("a\x00b\u202ec.png", "abc.png"), ("zaunkönig 🐦.png", "zaunkönig 🐦.png"), ("/", "image"),
    ],
)  # fmt: skip
def test_a_name_is_only_shown(name: str, shown: str) -> None:
    assert display_name(name) == shown
    assert len(display_name("x" * 999)) == MAX_NAME


def test_a_file_input_without_a_file_is_none() -> None:
    form = FormData([("image", upload(b"", "")), ("image", "text"), ("image", upload(b"", "empty.png"))])
    assert [file.filename for file in uploads(form, "image")] == ["empty.png"]
