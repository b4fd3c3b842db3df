"""Check what a profile says about a model, before anything is sent."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pleinair.agent.mllm.service import Server
from pleinair.tools.addresses import is_here
from pleinair.tools.prices import Price, price_of
from pleinair.tools.types import BadInput

log = logging.getLogger(__name__)


def checked_url(url: str) -> str:
    """Require a plain address: no password, which would end up in records, no query, no fragment."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    plain = host and not (parts.username or parts.password or parts.query or parts.fragment)
    if not plain or parts.scheme not in ("http", "https") or port == 0:
        shown = url if "@" not in url else f"…@{url.rpartition('@')[2]}"
        raise BadInput(
            f"mllm.base_url = {shown!r}: wanted such as https://host/v1 or http://127.0.0.1:8000/v1"
        )
    return url.rstrip("/")


def checked_name(model: str) -> str:
    """Require a model's name."""
    if not model.strip():
        raise BadInput("mllm.model is empty: wanted the server's name for the model")
    return model


def one_of(name: str, value: str, choices: tuple[str, ...]) -> Any:
    """Require one of the choices."""
    if value not in choices:
        raise BadInput(f"mllm.{name} = {value!r}: wanted one of: {', '.join(choices)}")
    return value


def positive(name: str, value: float) -> float:
    """Require a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise BadInput(f"mllm.{name} = {value!r}: wanted a number above 0")
    return value


def known_price(server: Server, own: Mapping[str, Any]) -> Price | None:
    """Look the price up, and say so where there is none and the server is another machine."""
    price = price_of(server.model, own)
    if price is None and not is_here(server.url):
        log.warning(
            "No price is known for %r: its calls count as 0 USD, and `budget.usd` cannot stop them. Write it "
            "under [mllm.prices].",
            server.model,
        )
    return price
