"""`pleinair mcp`: tools for the models of other programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from pleinair.app.cli.terminal import explained, say

if TYPE_CHECKING:
    from pleinair.app.server.site import Options

PORT = 8801  # beside that of `pleinair serve`, which has MCP too
Http = Annotated[bool, typer.Option("--http", help="Serve HTTP on this machine's loopback address.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on with --http; 0 for a free one.")]


def mcp(http: Http = False, port: Port = PORT) -> None:
    """Let another program's model start, see and approve images, by the Model Context Protocol.

    Programs such as Claude Desktop or Cursor start this command themselves and talk to it by standard input
    and output; runs go on when they end. `pleinair serve` has the same at /mcp. docs/mcp.md: settings of
    clients.
    """
    with explained():
        if not http:
            from pleinair.app.mcp.server import serve_stdio

            serve_stdio()
            return
        from pleinair.app.api import home
        from pleinair.app.server.mcp import create
        from pleinair.app.server.serve import TOKEN, serve
        from pleinair.app.server.site import Options

        options = Options(port=port, token=os.environ.pop(TOKEN, ""), workers=0)
        serve(options, home(), _greet, application=create)


def _greet(options: Options) -> None:
    from pleinair.app.server.mcp import PATH

    say(f"MCP is at http://{options.host}:{options.port}{PATH} (Ctrl-C stops it)")
    if options.token:
        say("Programs send the token as a bearer token.")
