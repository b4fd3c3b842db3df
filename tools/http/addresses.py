"""Where a server is: on this machine or not, behind a proxy or not, and how long it asks us to wait."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pleinair.tools.types import BadInput


def is_here(url: str) -> bool:
    """Say whether an address is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def proxy_of(url: str) -> str:
    """Find the proxy on the way to an address, empty where there is none; this machine is behind none.

    It is read from HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, with the exceptions in NO_PROXY, in small letters
    too. Raises `BadInput` for a proxy that is spoken to in another way than HTTP, such as SOCKS.
    """
    parts, known = urlsplit(url), getproxies()
    found = known.get(parts.scheme) or known.get("all") or ""
    if not found or is_here(url) or proxy_bypass(parts.hostname or ""):
        return ""
    proxy = found if "://" in found else f"http://{found}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        shown = proxy.rpartition("@")[2]
        raise BadInput(f"The environment sets the proxy {shown!r}: wanted http://… or https://…, or none.")
    return proxy


def pause_asked(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Read from Retry-After how many seconds a server wants us to wait; None where it does not say."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    try:
        then = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(then - (time.time() if now is None else now), 0.0)
