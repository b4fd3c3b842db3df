"""Whether it is known what a run's models cost, which a budget of money needs.

Not covered: engines of third parties, which may tell a price with their answers and pictures, or none at all.
"""

from __future__ import annotations

import os

from pleinair.app.settings import BackendChoice, Settings
from pleinair.tools.http.addresses import is_here
from pleinair.tools.http.prices import Price, Where, price_of
from pleinair.tools.types import BadInput

OPENAI = "https://api.openai.com/v1"
HERE = ("in_context", "ip_adapter", "controlnet", "text_only")  # generators on this machine


def require_prices(settings: Settings) -> None:
    """Refuse a budget of money for a hosted model without a price, since it could never stop the run."""
    if settings.budget.usd is None:
        return
    tables: tuple[tuple[Where, BackendChoice, str, str], ...] = (
        ("mllm", settings.mllm, "openai", "read = …, written = …"),
        ("generator", settings.generator, "openai_images", "read = …, read_images = …, written = …"),
    )
    for table, choice, engine, form in tables:
        if choice.backend == engine and not (is_local(choice) or _is_priced(choice, table)):
            model = str(choice.arguments.get("model", ""))
            more = " or generator.price_per_picture" if table == "generator" else ""
            raise BadInput(
                f"budget.usd = {settings.budget.usd}: no price is known for {table}.model = {model!r}, so "
                f'money could not stop the run; wanted "{model}" = {{ {form} }}, in US dollars a million '
                f"tokens, under [{table}.prices] of your pleinair.toml{more}, or no budget.usd"
            )


def _is_priced(choice: BackendChoice, table: Where) -> bool:
    """Tell whether it is known what a model of ours costs."""
    return choice.arguments.get("price_per_picture") is not None or listed(choice, table) is not None


def listed(choice: BackendChoice, table: Where) -> Price | None:
    """Look a model up in the price table, the user's own lines first."""
    return price_of(str(choice.arguments.get("model", "")), choice.arguments.get("prices") or {}, table)


def is_local(choice: BackendChoice) -> bool:
    """Tell whether an engine's server is this machine; one without an address is where it usually is."""
    usual = os.environ.get("OPENAI_BASE_URL", "") if choice.backend == "openai" else OPENAI
    return is_here(str(choice.arguments.get("base_url") or usual))
