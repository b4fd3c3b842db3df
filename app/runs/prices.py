"""What costs money: servers that are not on this machine, and the prices of their models."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pleinair.app.settings import BackendChoice, Settings
from pleinair.tools.http.addresses import OFFICIAL, base_addresses, is_here
from pleinair.tools.http.prices import Price, Where, price_of
from pleinair.tools.types import BadInput

_HOSTED = {  # backends that call OpenAI unless an address is set, with the form of a model's price
    "mllm": ("openai", "read = …, written = …"),
    "generator": ("openai_images", "read = …, read_images = …, written = …"),
}


def server_addresses(choice: BackendChoice) -> tuple[str, ...]:
    """Return the addresses of a backend's servers, or OpenAI's where none is set; raise `BadInput`."""
    default = os.environ.get("OPENAI_BASE_URL") if choice.backend == "openai" else ""
    texts = choice.arguments.get("base_url")
    if texts is None or texts == "":
        texts = default or OFFICIAL
    return tuple(address.url for address in base_addresses(texts, "base_url"))


def calls_server(choice: BackendChoice) -> bool:
    """Return whether a backend is one of this package that calls a server, or a list of them."""
    return any(choice.backend == backend for backend, _ in _HOSTED.values())


def is_hosted(choice: BackendChoice) -> bool:
    """Return whether a backend of this package calls a server that is not on this machine."""
    return calls_server(choice) and not is_local(choice)


def is_local(choice: BackendChoice) -> bool:
    """Return whether a backend's server, or every server of a list, is on this machine."""
    return all(is_here(address) for address in server_addresses(choice))


def is_paid(generator: BackendChoice) -> bool:
    """Return whether each image of a generator costs money, as far as its settings tell."""
    return is_hosted(generator) or bool(generator.arguments.get("price_per_picture"))


def listed_price(choice: BackendChoice, table: Where) -> Price | None:
    """Return the price of a model, from the settings or else from the built-in table; None if unknown."""
    return price_of(str(choice.arguments.get("model", "")), choice.arguments.get("prices") or {}, table)


def require_prices(settings: Settings, used: Sequence[Where] = ("mllm", "generator")) -> None:
    """Raise `BadInput` for a budget of money with a hosted model without a price: it could not stop the run.

    `used` are the tables whose models are called. Not covered: third-party backends, whose results may report
    a price or not.
    """
    if settings.budget.usd is None:
        return
    for table in used:
        choice: BackendChoice = getattr(settings, table)
        backend, form = _HOSTED[table]
        is_priced = choice.arguments.get("price_per_picture") is not None or listed_price(choice, table)
        if choice.backend == backend and not is_local(choice) and not is_priced:
            model = str(choice.arguments.get("model", ""))
            other = " or generator.price_per_picture" if table == "generator" else ""
            raise BadInput(
                f"budget.usd = {settings.budget.usd}: no price is known for {table}.model = {model!r}, so "
                "money could not stop the run",
                f'Set "{model}" = {{ {form} }}, in US dollars a million tokens, under [{table}.prices] of '
                f"your pleinair.toml{other}, or no budget.usd.",
            )
