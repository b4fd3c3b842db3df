"""Route of LangGraph's server for the images of served graphs, by their content; see `langgraph.json`."""

from __future__ import annotations

import re
from contextlib import suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pleinair.app.api import home
from pleinair.tools.storage.artifacts import ArtifactStore, BadArtifact
from pleinair.tools.types import Picture

_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEADERS = {"cache-control": "private, max-age=31536000, immutable", "x-content-type-options": "nosniff"}


def _image(request: Request) -> Response:
    """Send a stored PNG; 404 for any other name, and for one that has changed."""
    digest = request.path_params["digest"]
    if _SHA256.fullmatch(digest):
        with suppress(BadArtifact):
            data = ArtifactStore(home().served_images).read(Picture(sha256=digest, width=1, height=1))
            return Response(data, media_type="image/png", headers={**_HEADERS, "etag": f'"{digest}"'})
    raise HTTPException(404)


app = Starlette(routes=[Route("/images/{digest}.png", _image)])
