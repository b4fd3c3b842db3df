"""Images that a browser sends, and the input images by address."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import Response
from PIL import Image
from starlette.datastructures import FormData, UploadFile

from pleinair.app.paths import Paths
from pleinair.app.runs.request import read_input_image, store_input_images
from pleinair.app.server.site import png, site_of, stored_png
from pleinair.tools.storage.artifacts import ArtifactStore
from pleinair.tools.types import Picture

MAX_NAME = 80  # characters of a file's name that are shown
router = APIRouter()


class Upload(NamedTuple):
    """Stored image, and the name of its file, which is only shown."""

    picture: Picture
    name: str


def uploads(form: FormData, field: str) -> list[UploadFile]:
    """Return the files of a field of a form; a file input in which nothing was chosen sends an empty one."""
    files = [value for value in form.getlist(field) if isinstance(value, UploadFile)]
    return [file for file in files if file.filename or file.size]


def stored(file: UploadFile, places: Paths) -> Upload:
    """Decode an uploaded file in the image sandbox and store it among the input images; blocks.

    Raises `BadInput` for what is no image, and `PleinairError` if the disk is full.
    """
    name = display_name(file.filename or "")
    image = read_input_image(file.file.read(), name)
    (picture,) = store_input_images([image], places)
    return Upload(picture, name)


def own_image(
    fields: dict[str, str], number: int, files: Sequence[UploadFile], places: Paths
) -> Upload | None:
    """Return the image of a person's own for a concept: one that is sent now, or was sent before.

    `fields` get what the form needs to have it, if it comes back with another fault. Raises as `stored`.
    """
    image, name = f"image-{number}", f"image-name-{number}"
    if files:
        upload = stored(files[0], places)
        fields |= {image: upload.picture.sha256, name: upload.name}
        return upload
    sha256 = fields.pop(image, "")
    data = stored_png(ArtifactStore(places.input_images), sha256)
    if data is None:
        return None
    fields |= {image: sha256, name: display_name(fields.get(name, ""))}
    with Image.open(io.BytesIO(data)) as opened:
        return Upload(Picture(sha256=sha256, width=opened.width, height=opened.height), fields[name])


def display_name(name: str) -> str:
    """Return the last part of a file's name, without control characters, of at most `MAX_NAME` characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    text = "".join(character for character in last if character.isprintable()).strip()
    return (text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 1]}…") or "image"


@router.get("/images/{name}.png")
def input_image(request: Request, name: str) -> Response:
    """Send an input image by its SHA-256."""
    return png(stored_png(ArtifactStore(site_of(request).places.input_images), name))
