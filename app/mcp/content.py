"""What a tool returns: text always, small images, links to whole ones, and values for programs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent
from PIL import Image

from pleinair.app.texts import printable
from pleinair.tools.types import Picture, PleinairError

MOST_CHARACTERS = 700_000  # of an image in base64; a client may refuse a result of 1 MB
SIDE = 1568  # pixels; models see larger images reduced to this
LOSSLESS = 512 * 512  # pixels; larger images are mostly too large as PNG
SMALL = 256  # pixels of the side of one of several images
MOST_SMALL = 24_000  # characters of one of several images
PNG = "image/png"
VALUES = "pleinair/values"  # of the metadata of a result
TEMPLATE = "pleinair://images/{sha256}"
_QUALITIES = (90, 75, 50)  # of JPEG


def result(lines: Iterable[str], values: Mapping[str, Any]) -> CallToolResult:
    """Return the result of a call whose values have all that its lines of text have."""
    return CallToolResult(content=[text_block(*lines)], structured_content=dict(values))


def shown_result(
    lines: Iterable[str], values: Mapping[str, Any], more: Sequence[ContentBlock] = ()
) -> CallToolResult:
    """Return the result of a call that a model must read and see: lines of text, further content, values.

    The values, for programs, are metadata: of a result with structured content many clients show a model
    nothing else, so that it would see no image.
    """
    return CallToolResult(content=[text_block(*lines), *more], _meta={VALUES: dict(values)})


def failure(error: PleinairError) -> CallToolResult:
    """Return the result of a call that failed, with what to do about it."""
    remedy = [f"What to do: {error.remedy}"] if error.remedy else []
    return CallToolResult(content=[text_block(f"Error: {error.message}", *remedy)], is_error=True)


def text_block(*lines: str) -> TextContent:
    """Return lines of text, as of a result or between its images."""
    return TextContent(text="\n".join(map(printable, lines)))


def small_preview(image: Image.Image) -> ImageContent:
    """Return a preview of one of several images."""
    return preview(image, SMALL, MOST_SMALL)


def preview(image: Image.Image, side: int = SIDE, most: int = MOST_CHARACTERS) -> ImageContent:
    """Return an image as PNG or JPEG of at most `side` pixels a side, with fewer than `most` characters."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    for data, kind in _encodings(small):
        text = base64.b64encode(data).decode()
        if len(text) < most:
            return ImageContent(data=text, mime_type=kind)
    raise AssertionError("an image of one pixel is small enough")


def _encodings(image: Image.Image) -> Iterator[tuple[bytes, str]]:
    """Yield an image encoded in ever fewer bytes."""
    if image.width * image.height <= LOSSLESS:
        yield _encoded(image, "PNG"), PNG
    while True:
        for quality in _QUALITIES:
            yield _encoded(image, "JPEG", quality=quality), "image/jpeg"
        image = image.resize((max(1, image.width // 2), max(1, image.height // 2)))


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def links(picture: Picture, name: str, run_id: str = "", address: str = "") -> list[ContentBlock]:
    """Return links to a whole image: a resource and, where there are pages, its web address."""
    size = f"{picture.width} × {picture.height} pixels"
    uris = [TEMPLATE.format(sha256=picture.sha256)]
    if address:
        uris.append(f"{address}/runs/{run_id}/images/{picture.sha256}.png")
    return [ResourceLink(uri=uri, name=f"{name}.png", mime_type=PNG, description=size) for uri in uris]
