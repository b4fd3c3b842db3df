"""Addresses of servers: whether one is this machine, behind a proxy, and fit to be recorded."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pleinair.tools.types import BadInput


def is_here(url: str) -> bool:
    """Return whether an address is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_url(url: str, setting: str) -> str:
    """Return an address without the slash at its end.

    Raise `BadInput`, with the name of the setting, for what is no HTTP address, and for one with a password,
    which would end up in sidecars, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    plain = host and not (parts.username or parts.password or parts.query or parts.fragment)
    if not plain or parts.scheme not in ("http", "https") or port == 0:
        shown = url if "@" not in url else f"…@{url.rpartition('@')[2]}"
        raise BadInput(f"{setting} = {shown!r}: wanted such as https://host/v1 or http://127.0.0.1:8000/v1")
    return url.rstrip("/")


def proxy_of(url: str) -> str:
    """Return the proxy for an address, empty where there is none; this machine is behind none.

    It is read from HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, with the exceptions in NO_PROXY, in small letters
    too. Raise `BadInput` for a proxy of another protocol than HTTP, such as SOCKS.
    """
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not proxy or is_here(url) or proxy_bypass(parts.hostname or ""):
        return ""
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        shown = proxy.rpartition("@")[2]
        raise BadInput(f"The environment sets the proxy {shown!r}: wanted http://… or https://…, or none.")
    return proxy
