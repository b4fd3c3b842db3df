"""Resources: whole images by their SHA-256, and storyboards of runs as pages for MCP Apps."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from mcp.server.apps import APP_MIME_TYPE
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    BlobResourceContents,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceRequestParams,
    ReadResourceResult,
    ResourceLink,
    ResourceTemplate,
    TextResourceContents,
)

from pleinair.app.api import home, run_table
from pleinair.app.mcp.content import PNG, TEMPLATE
from pleinair.app.runs.images import stored_image
from pleinair.app.runs.request import read_request
from pleinair.app.storyboard.export import exported, render_html
from pleinair.app.storyboard.gallery import Gallery, ShownImage
from pleinair.app.trace.trace import trace_begun
from pleinair.tools.types import Box, Hit, NotFound, Picture, PleinairError

STORYBOARD = "ui://pleinair/runs/{run}/storyboard"
MOST_BYTES = 1_000_000  # of a storyboard; larger ones come without their images


async def list_resources(*_: Any) -> ListResourcesResult:
    """Return no resources: there are too many images to list."""
    return ListResourcesResult(resources=[])


async def list_templates(*_: Any) -> ListResourceTemplatesResult:
    """Return the addresses of resources."""
    image = ResourceTemplate(
        uri_template=TEMPLATE,
        name="image",
        description="Whole image by its SHA-256: of a run, a reference, or an input image.",
        mime_type=PNG,
    )
    storyboard = ResourceTemplate(
        uri_template=STORYBOARD,
        name="storyboard",
        description="All attempts of a run with their verdicts and references, as a page without scripts.",
        mime_type=APP_MIME_TYPE,
    )
    return ListResourceTemplatesResult(resource_templates=[image, storyboard])


async def read_resource(_: Any, request: ReadResourceRequestParams) -> ReadResourceResult:
    """Read a resource; raises `MCPError` for one that there is not."""
    try:
        contents = await asyncio.to_thread(_contents, request.uri)
    except PleinairError as error:
        raise MCPError(INVALID_PARAMS, str(error), {"uri": request.uri[:200]}) from error
    return ReadResourceResult(contents=[contents])


def storyboard_link(run_id: str) -> ResourceLink:
    """Return a link to the storyboard of a run."""
    return ResourceLink(uri=STORYBOARD.format(run=run_id), name="storyboard", mime_type=APP_MIME_TYPE)


def _contents(uri: str) -> BlobResourceContents | TextResourceContents:
    if sha256 := _variable(uri, TEMPLATE):
        blob = base64.b64encode(stored_image(sha256, home())).decode()
        return BlobResourceContents(uri=uri, blob=blob, mime_type=PNG)
    if run_id := _variable(uri, STORYBOARD):
        return TextResourceContents(uri=uri, text=_storyboard(run_id), mime_type=APP_MIME_TYPE)
    raise NotFound(f"resource {uri[:80]!r}: there is none; accepted: {TEMPLATE}, {STORYBOARD}")


def _variable(uri: str, template: str) -> str:
    """Return the value of the only variable of a template, "" where the address is another one."""
    prefix, _, rest = template.partition("{")
    suffix = rest.partition("}")[2]
    is_of_it = uri.startswith(prefix) and uri.endswith(suffix)
    return uri.removeprefix(prefix).removesuffix(suffix) if is_of_it else ""


def _storyboard(run_id: str) -> str:
    run = run_table().get(run_id)
    page = exported(run, home(), ".html")
    if len(page) >= MOST_BYTES:
        gallery = _NoImages(run.id, read_request(run.request_json), home())
        return render_html(trace_begun(run, home()), gallery)
    return page.decode()


class _NoImages(Gallery):
    """Gallery of which a page shows the texts only."""

    def stored(self, picture: Picture, crop: Box | None = None) -> ShownImage | None:
        return None

    def thumbnail(self, hit: Hit) -> ShownImage | None:
        return None
