"""MCP clients of a server in this process."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp.client import Client
from mcp_types import CallToolResult, ImageContent, ResourceLink, TextContent

from pleinair.app.mcp.access import Access
from pleinair.app.mcp.content import VALUES
from pleinair.app.mcp.server import new_server

LATEST, BEFORE = "2026-07-28", "legacy"  # modes of a client: the newest specification, and those before


def client_of(access: Access, mode: str = LATEST) -> Client:
    """Return a client of a new server."""
    return Client(new_server(lambda context: access), mode=mode)


def call(access: Access, name: str, mode: str = LATEST, **arguments: Any) -> CallToolResult:
    """Call one tool of a new server."""

    async def connect() -> CallToolResult:
        async with client_of(access, mode) as client:
            return await client.call_tool(name, arguments)

    return asyncio.run(connect())


def text_of(result: CallToolResult) -> str:
    """Return the text of a result."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def images_of(result: CallToolResult) -> list[ImageContent]:
    """Return the images of a result."""
    return [block for block in result.content if isinstance(block, ImageContent)]


def links_of(result: CallToolResult) -> list[ResourceLink]:
    """Return the links of a result."""
    return [block for block in result.content if isinstance(block, ResourceLink)]


def values_of(result: CallToolResult) -> dict[str, Any]:
    """Return the values for programs of a result that is no error."""
    assert not result.is_error, text_of(result)
    values: Any = result.structured_content or (result.meta or {}).get(VALUES)
    assert isinstance(values, dict)
    return values
