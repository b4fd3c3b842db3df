"""Prices of calls: a small table, which the user's own settings may change.

Not covered: discounts for batches and service tiers, so that the sum is rather too high, as it is for cached
tokens without a price of their own; surcharges for very long requests, and for writing into a cache.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from pleinair.tools.types import BadInput, Usage, Value

TABLE = Path(__file__).with_name("prices.toml")
_DATED = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")
MILLION = 1_000_000
Where = Literal["mllm", "generator"]  # the table of the settings that may contain the user's own lines


class Price(Value):
    """Price of a model's tokens, in US dollars a million."""

    read: float = Field(ge=0)
    written: float = Field(ge=0)
    read_cached: float | None = Field(default=None, ge=0)  # from a cache; None: the same as `read`
    read_images: float | None = Field(default=None, ge=0)  # None: the same as text

    def usd(self, read: int, written: int, *, images: int = 0, cached: int = 0) -> float:
        """Return the price of one call.

        `images` are the tokens of images, which `read` does not include; `cached` are those of `read` that
        came from the provider's cache.
        """
        of_images = self.read if self.read_images is None else self.read_images
        of_cached = self.read if self.read_cached is None else self.read_cached
        cached = min(max(cached, 0), max(read, 0))
        price = (max(read, 0) - cached) * self.read + cached * of_cached
        return (price + max(images, 0) * of_images + max(written, 0) * self.written) / MILLION

    def of_usage(self, usage: Any) -> Usage | None:
        """Return the cost of a call of the images API; None where its usage states no tokens."""
        read, written = _count(usage, "input_tokens"), _count(usage, "output_tokens")
        images = min(_count(getattr(usage, "input_tokens_details", None), "image_tokens"), read)
        return Usage(usd=self.usd(read - images, written, images=images)) if read or written else None


def _count(usage: Any, name: str) -> int:
    """Read a number of tokens; anything else is 0."""
    value = getattr(usage, name, 0)
    return value if isinstance(value, int) and value > 0 else 0


def price_of(model: str, own_prices: Mapping[str, Any], where: Where = "mllm") -> Price | None:
    """Return the price of a model, the user's own before the shipped; a dated version costs the same.

    Raise `BadInput` for a line of the user's table that is no price.
    """
    for name in (model, _DATED.sub("", model)):
        if name in own_prices:
            try:
                return Price.model_validate(own_prices[name])
            except ValidationError as error:
                line = f"{where}.prices.{name} = {own_prices[name]!r}"
                accepted = "{ read = …, written = … } in US dollars a million"
                raise BadInput(f"{line}: wanted {accepted}") from error
        if name in shipped():
            return shipped()[name]
    return None


@cache
def shipped() -> dict[str, Price]:
    """Read the table of this package."""
    lines = tomllib.loads(TABLE.read_text("utf-8"))
    return {model: Price.model_validate(price) for model, price in lines.items()}
