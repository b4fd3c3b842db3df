"""What a call costs: a small table, which the user's own settings may change.

Not covered: discounts for cached tokens, batches and service tiers, so that the sum is rather too high.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from langchain_core.messages.ai import UsageMetadata
from pydantic import Field, ValidationError

from pleinair.tools.types import BadInput, Value

TABLE = Path(__file__).with_name("prices.toml")
DATED = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")
MILLION = 1_000_000


class Price(Value):
    """Price a model's tokens, in US dollars a million."""

    read: float = Field(ge=0)
    written: float = Field(ge=0)

    def usd(self, read: int, written: int) -> float:
        """Price one call."""
        return (max(read, 0) * self.read + max(written, 0) * self.written) / MILLION


def price_of(model: str, own: Mapping[str, Any]) -> Price | None:
    """Look a model up, first in the user's own table; a dated version costs what the model does.

    Raises `BadInput` for a line of the user's table that is no price.
    """
    for name in (model, DATED.sub("", model)):
        if name in own:
            return checked(name, own[name])
        if name in shipped():
            return shipped()[name]
    return None


def checked(model: str, given: Any) -> Price:
    """Read one line of the user's table."""
    try:
        return Price.model_validate(given)
    except ValidationError as error:
        raise BadInput(
            f"mllm.prices.{model} = {given!r}: wanted {{ read = …, written = … }} in US dollars a million"
        ) from error


@cache
def shipped() -> dict[str, Price]:
    """Read the table of this package."""
    lines = tomllib.loads(TABLE.read_text("utf-8"))
    return {model: Price.model_validate(price) for model, price in lines.items()}


def summed(replies: Sequence[UsageMetadata]) -> UsageMetadata:
    """Add what several tries have cost; a count that is no count is none."""
    read = sum(max(one["input_tokens"], 0) for one in replies)
    written = sum(max(one["output_tokens"], 0) for one in replies)
    total = sum(max(one["total_tokens"], 0) for one in replies)
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=max(total, read + written))
