"""Addresses of servers: whether one is this machine, behind a proxy, and fit to be recorded."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from pleinair.tools.types import BadInput

OFFICIAL = "https://api.openai.com/v1"
_KEPT = {"api-version"}  # queries of a base address: Azure's
_INTERFACE = re.compile(
    r"(/chat)?/completions$|/responses$|/images(/generations|/edits)?$|/models$|/embeddings$"
)
_NATIVE = re.compile(r"/api/(chat|generate|tags|show|embed|embeddings|version)$")


def is_here(url: str) -> bool:
    """Return whether an address is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Address:
    """Base address of a server, up to `/v1`, and the query that every request carries."""

    url: str
    query: Mapping[str, str] = field(default_factory=dict)


def base_address(text: str, setting: str) -> Address:
    """Return the base address that `text` means.

    Blanks, quotes, slashes at the end and the path of an interface (`/chat/completions`, `/models`) are
    removed. Without a scheme it is http for this machine, private addresses and names without a dot, else
    https; without a path it is `/v1`. Azure's `api-version` is kept as a query.

    Raise `BadInput`, with the name of the setting and the right spelling, for what is no HTTP address, and
    for one with a password, another query or a fragment, which would end up in sidecars.
    """
    plain = text.strip().strip("\"'`<>").strip()
    if "://" not in plain:
        plain = f"{'http' if _is_private(urlsplit(f'//{plain}')) else 'https'}://{plain}"
    try:
        parts = urlsplit(plain)
        query, port = dict(parse_qsl(parts.query, keep_blank_values=True)), parts.port
    except ValueError:
        raise _refused(text, setting) from None
    path = _base_path(parts.path)
    is_host = parts.hostname and not re.search(r"[\s,;\"'<>\\^`{|}]", parts.hostname)
    netloc = parts.netloc.replace("0.0.0.0", "127.0.0.1")
    url = urlunsplit((parts.scheme.lower(), netloc.rpartition("@")[2], path, "", ""))
    if parts.scheme.lower() not in ("http", "https") or not is_host or port == 0:
        raise _refused(text, setting)
    if "@" in netloc or query.keys() - _KEPT or parts.fragment:
        raise _refused(text, setting, url)
    return Address(url, query)


def base_addresses(texts: str | Sequence[str], setting: str) -> tuple[Address, ...]:
    """Return the base address of one server, or those of a list, in the order of their URLs.

    Raise `BadInput` as `base_address` does, and for an empty list or a server that is in it twice.
    """
    if isinstance(texts, str):
        return (base_address(texts, setting),)
    addresses = sorted((base_address(text, setting) for text in texts), key=lambda address: address.url)
    if not addresses:
        raise BadInput(f"{setting} = []: wanted an address, or a list of at least one")
    for former, address in itertools.pairwise(addresses):
        if former.url == address.url:
            raise BadInput(f"{setting} = {list(texts)!r}: {address.url} is in it twice; list it once")
    return tuple(addresses)


def _base_path(path: str) -> str:
    """Return the path up to the version: `/v1` where there is none, nothing of the interface behind it."""
    path = path.rstrip("/")
    if native := _NATIVE.search(path):  # Ollama's own interface; OpenAI's is beside it
        path = path[: native.start()]
    path = _INTERFACE.sub("", path).rstrip("/")
    return path or "/v1"


def _is_private(parts: SplitResult) -> bool:
    """Return whether a host is probably of this machine or network, where nobody has certificates."""
    try:
        host = parts.hostname or ""
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".lan", ".internal"))


def _refused(text: str, setting: str, url: str = "") -> BadInput:
    shown = text if "@" not in text else f"…@{text.rpartition('@')[2]}"
    accepted = repr(url) if url else "such as https://host/v1 or http://127.0.0.1:8000/v1"
    return BadInput(f"{setting} = {shown!r}: wanted {accepted}")


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
