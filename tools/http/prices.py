"""What a call costs: a small table, which the user's own settings may change.

Not covered: discounts for cached tokens, batches and service tiers, so that the sum is rather too high; and
surcharges for very long questions.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from pleinair.tools.types import BadInput, Value

TABLE = Path(__file__).with_name("prices.toml")
DATED = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")
MILLION = 1_000_000
Where = Literal["mllm", "generator"]  # the table of the settings that may hold the user's own lines


class Price(Value):
    """Price a model's tokens, in US dollars a million."""

    read: float = Field(ge=0)
    written: float = Field(ge=0)
    read_images: float | None = Field(default=None, ge=0)  # None: the same as text

    def usd(self, read: int, written: int, images: int = 0) -> float:
        """Price one call; `images` are the tokens of pictures, which `read` does not count."""
        sight = self.read if self.read_images is None else self.read_images
        paid = max(read, 0) * self.read + max(images, 0) * sight + max(written, 0) * self.written
        return paid / MILLION


def price_of(model: str, own: Mapping[str, Any], where: Where = "mllm") -> Price | None:
    """Look a model up, first in the user's own table; a dated version costs what the model does.

    Raises `BadInput` for a line of the user's table that is no price.
    """
    for name in (model, DATED.sub("", model)):
        if name in own:
            return _checked(name, own[name], where)
        if name in shipped():
            return shipped()[name]
    return None


def _checked(model: str, given: Any, where: Where) -> Price:
    """Read one line of the user's table."""
    try:
        return Price.model_validate(given)
    except ValidationError as error:
        raise BadInput(
            f"{where}.prices.{model} = {given!r}: wanted {{ read = …, written = … }} in US dollars a million"
        ) from error


@cache
def shipped() -> dict[str, Price]:
    """Read the table of this package."""
    lines = tomllib.loads(TABLE.read_text("utf-8"))
    return {model: Price.model_validate(price) for model, price in lines.items()}
