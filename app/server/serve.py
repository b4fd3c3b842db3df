"""Run the server until it is stopped."""

from __future__ import annotations

import ipaddress

from pleinair.app.paths import Paths
from pleinair.app.server.app import create
from pleinair.app.server.site import Options
from pleinair.tools.types import BadInput

GRACE = 5  # seconds that open streams have at a stop


def serve(options: Options, places: Paths) -> None:
    """Serve until SIGINT or SIGTERM; raises `BadInput` for an open address without a token."""
    import uvicorn

    if not options.token and not _is_loopback(options.host):
        raise BadInput(
            f"host {options.host!r}: others can reach this address, so a token is needed",
            "Set PLEINAIR_SERVE_TOKEN, or listen on 127.0.0.1.",
        )
    uvicorn.run(
        create(options, places),
        host=options.host,
        port=options.port,
        timeout_graceful_shutdown=GRACE,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_level="warning",
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
