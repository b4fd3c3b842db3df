"""Run the server until it is stopped."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

import psutil
import uvicorn
from starlette.types import ASGIApp

from pleinair.app.paths import Paths
from pleinair.app.runs.store import Runs
from pleinair.app.server.app import create
from pleinair.app.server.site import Options, Site
from pleinair.tools.types import BadInput

GRACE = 5  # seconds that open streams have at a stop
LEAST_TOKEN = 8  # characters
TOKEN = "PLEINAIR_SERVE_TOKEN"  # variable of the environment
_NAME = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?")


def serve(
    options: Options,
    places: Paths,
    on_ready: Callable[[Options], None] = lambda options: None,
    on_stop: Callable[[], None] = lambda: None,
    application: Callable[[Options, Paths, Site], ASGIApp] = create,
) -> None:
    """Serve until SIGINT or SIGTERM, at the second of which the process exits at once with 130.

    Args:
        options: checked here; see `Options`.
        places: of the runs.
        on_ready: called with the options, the real port in them, once requests are served.
        on_stop: called when a stop begins.
        application: returns what is served.

    Raises:
        BadInput: an open address without a token, an unusable token or name, an address that cannot be had.
        PleinairError: the home cannot be used.
    """
    check(options)
    with Runs(places.table) as runs:
        runs.unfinished()
    with _listen(options.host, options.port) as listener:
        options = replace(options, port=listener.getsockname()[1])
        if is_open(options.host):
            options = replace(options, names=(*options.names, *_own_addresses()))
        site = Site(options, places)

        def stop() -> None:
            site.watcher.close()
            site.monitor.stop()
            on_stop()

        config = uvicorn.Config(
            application(options, places, site),
            timeout_graceful_shutdown=GRACE,
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_level="warning",
        )
        if not options.is_judging:
            site.monitor.start()
        try:
            _Server(config, lambda: on_ready(options), stop).run([listener])
        finally:
            site.monitor.close()


class _Server(uvicorn.Server):
    """Server that ends normally at a signal, and says when it begins and stops."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None], on_stop: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_ready, self._on_stop = on_ready, on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(130)  # the workers notice, and their runs go on at the next start
        self.should_exit = True


def check(options: Options) -> None:
    """Raise `BadInput` for an open address without a token, or an unusable token or name."""
    if not options.token and not _is_loopback(options.host):
        raise BadInput(
            f"host {options.host!r}: others can reach this address, so a token is needed",
            f"Set {TOKEN} to a secret, such as the output of `openssl rand -hex 16`, or listen on 127.0.0.1.",
        )
    token = options.token
    if token and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise BadInput(f"{TOKEN}: must be {LEAST_TOKEN} or more ASCII characters without spaces")
    for name in options.names:
        if not _NAME.fullmatch(name):
            raise BadInput(f"host name {name!r}: must be a name such as images.example.org, without https://")


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; raises `BadInput`."""
    address = _address("127.0.0.1" if host == "localhost" else host)
    if address is None:
        raise BadInput(f"host {host!r}: must be an address of this machine, such as 127.0.0.1 or 0.0.0.0")
    listener = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
    except OSError as error:
        listener.close()
        is_foreign = error.errno == errno.EADDRNOTAVAIL
        other_port = "Choose another port, such as `--port 8801`; `--port 0` takes a free one."
        remedy = "Listen on an address of this machine." if is_foreign else other_port
        raise BadInput(f"host {host}, port {port}: {error.strerror}", remedy) from error
    return listener


def _is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def is_open(host: str) -> bool:
    """Return whether an address stands for all of this machine's, such as 0.0.0.0."""
    address = _address(host)
    return address is not None and address.is_unspecified


def _own_addresses() -> list[str]:
    """Return the addresses by which other machines reach this one; IPv4 first.

    A page elsewhere cannot pretend to have such a name, as it can with DNS.
    """
    found = [address.address for each in psutil.net_if_addrs().values() for address in each]
    addresses = [address for text in found if (address := _address(text))]
    others = [address for address in addresses if not (address.is_loopback or address.is_link_local)]
    others.sort(key=lambda address: address.version)
    return [f"[{address}]" if address.version == 6 else str(address) for address in others]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
